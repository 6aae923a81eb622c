"""Search and distillation steps in PyTorch, as a practised user would write them.

    python benchmarks/peers/pytorch.py --precision bfloat16 [--compile]

channels_last, bfloat16 by autocast, only the groups that a step needs, no gradients for what is
not trained, SGD with Nesterov momentum and Adam of torch.optim (for-each forms), and batches that
lie ready in memory.
"""

import torch
import torch.nn.functional as F
from serve import BATCH, parsed, serve, timed
from torch import nn


class Block(nn.Module):
    def __init__(self, before, channels, stride):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or before != channels:
            self.shortcut = nn.Conv2d(before, channels, 1, stride, bias=False)

    def forward(self, x):
        """(what the block adds up to, its input as the first normalization gives it)."""
        normalized = self.norm1(x)
        activated = F.relu(normalized)
        y = self.conv2(F.relu(self.norm2(self.conv1(activated))))
        return (x if self.shortcut is None else self.shortcut(activated)) + y, normalized


class WideResNet(nn.Module):
    """WRN whose features are the pre-ReLU maps after each block, as the next normalization gives."""

    def __init__(self, depth, width, classes=100):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.groups, before = nn.ModuleList(), 16
        for channels, stride in ((16, 1), (32, 2), (64, 2)):
            blocks = nn.ModuleList()
            for k in range((depth - 4) // 6):
                blocks.append(Block(before, channels * width, stride if k == 0 else 1))
                before = channels * width
            self.groups.append(blocks)
        self.norm, self.logits = nn.BatchNorm2d(before), nn.Linear(before, classes)

    def features(self, images, last):
        """Features of groups 1..last, and the stream after it."""
        x, found = self.stem(images), []
        for g in range(last):
            outputs = []
            for k, block in enumerate(self.groups[g]):
                x, normalized = block(x)
                if k:
                    outputs.append(normalized)
            following = self.groups[g + 1][0].norm1 if g + 1 < len(self.groups) else self.norm
            # The next group normalizes this again: kept apart, since a step may end here.
            outputs.append(following(x))
            found.append(outputs)
        return found, x

    def tail(self, stream, group):
        """Logits from what enters after `group`."""
        x = stream
        for blocks in self.groups[group:]:
            for block in blocks:
                x, _ = block(x)
        return self.logits(F.relu(self.norm(x)).mean((2, 3)))

    def forward(self, images):
        """(features of all groups, logits), each normalization run once."""
        x, found = self.stem(images), []
        for g, blocks in enumerate(self.groups):
            for k, block in enumerate(blocks):
                x, normalized = block(x)
                if k or g:
                    found[-1].append(normalized)
                if k == 0:
                    found.append([])
        last = self.norm(x)
        found[-1].append(last)
        return found, self.logits(F.relu(last).mean((2, 3)))


def clip(x):
    return x.clamp(min=-1)


def partial_l2(s, t):
    t = t.clamp(min=-1)
    return torch.where((s > t) | (t > 0), s - t, 0).float().square().sum((1, 2, 3))


def prepared(model):
    return model.to(memory_format=torch.channels_last)


def sgd(parameters):
    return torch.optim.SGD(
        parameters, 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, foreach=True
    )


class Steps:
    """Each of the steps, as a function of nothing that runs one iteration."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.teacher = prepared(WideResNet(*arguments.teacher)).eval().requires_grad_(False)
        self.images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
        self.labels = torch.randint(0, 100, (BATCH,))
        self.channels = [width * arguments.teacher[1] for width in (16, 32, 64)]
        self.of_student = [width * arguments.student[1] for width in (16, 32, 64)]

    def new_student(self):
        return prepared(WideResNet(*self.arguments.student)).train()

    def cast(self):
        bfloat16 = self.arguments.precision == "bfloat16"
        return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)

    def compiled(self, function):
        return torch.compile(function) if self.arguments.compile else function

    def search(self, group):
        student = self.new_student()
        st = prepared(
            nn.Conv2d(self.of_student[group - 1], self.channels[group - 1], 1, bias=False)
        )
        ts = prepared(
            nn.Conv2d(self.channels[group - 1], self.of_student[group - 1], 1, bias=False)
        )
        beta = torch.zeros(len(self.teacher.groups[group - 1]), requires_grad=True)
        of_beta = torch.optim.Adam([beta], 1e-3, (0.5, 0.999), weight_decay=1e-3)
        trained = nn.ModuleList([student, st, ts])
        of_w = sgd(trained.parameters())

        def bridge(alpha, features):
            aggregation = sum(a * clip(t) for a, t in zip(alpha, features, strict=True))
            found, _ = student.features(self.images, group)
            mapped = st(clip(found[-1][-1]))
            logits = student.tail(ts(aggregation), group)
            difference = F.normalize(mapped.float().flatten(1)) - F.normalize(
                aggregation.float().flatten(1)
            )
            st_loss = difference.square().sum(1)
            ts_loss = F.cross_entropy(logits.float(), self.labels, reduction="none")
            return (1e-3 * st_loss + ts_loss).mean()

        def of_teacher():
            with torch.no_grad():
                found, _ = self.teacher.features(self.images, group)
            return found[-1]

        def beta_loss():
            with self.cast():
                return bridge(beta.softmax(0), of_teacher())

        def w_loss():
            with self.cast():
                return bridge(beta.detach().softmax(0), of_teacher())

        beta_loss, w_loss = self.compiled(beta_loss), self.compiled(w_loss)

        def iterate():
            # The beta step needs no weight's gradient.
            trained.requires_grad_(False)
            of_beta.zero_grad(set_to_none=True)
            beta_loss().backward()
            of_beta.step()
            trained.requires_grad_(True)
            of_w.zero_grad(set_to_none=True)
            w_loss().backward()
            of_w.step()

        return iterate

    def distill(self):
        student = self.new_student()
        transforms = nn.ModuleList(
            prepared(nn.Sequential(nn.Conv2d(s, t, 1, bias=False), nn.BatchNorm2d(t)))
            for s, t in zip(self.of_student, self.channels, strict=True)
        )
        optimizer = sgd([*student.parameters(), *transforms.parameters()])
        alpha = [1 / len(blocks) for blocks in self.teacher.groups]

        def loss():
            with self.cast():
                with torch.no_grad():
                    found, _ = self.teacher(self.images)
                    targets = [a * sum(features) for a, features in zip(alpha, found, strict=True)]
                outputs, logits = student(self.images)
                distances = [
                    partial_l2(transform(features[-1]), target) / 2 ** (2 - g)
                    for g, (transform, features, target) in enumerate(
                        zip(transforms, outputs, targets, strict=True)
                    )
                ]
                entropy = F.cross_entropy(logits.float(), self.labels, reduction="none")
                return (entropy + 1e-3 * sum(distances)).mean()

        loss = self.compiled(loss)

        def iterate():
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            optimizer.step()

        return iterate

    def teacher_forward(self):
        @self.compiled
        def forward():
            with torch.inference_mode(), self.cast():
                return self.teacher(self.images)

        return forward


def main():
    steps = Steps(parsed("--compile"))
    serve(
        search=lambda group: timed(steps.search(group)),
        distill=lambda: timed(steps.distill()),
        teacher_forward=lambda: timed(steps.teacher_forward()),
    )


if __name__ == "__main__":
    main()
