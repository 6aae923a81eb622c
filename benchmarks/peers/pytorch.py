"""Search and distillation steps in PyTorch, as an experienced user would write them.

    python benchmarks/peers/pytorch.py --precision bfloat16 [--compile]

channels_last, bfloat16 by autocast, only the groups that a step needs, no gradients of frozen
weights, SGD with Nesterov momentum and Adam of torch.optim (for-each forms), and a batch in memory.
"""

import torch
import torch.nn.functional as F
from serve import BATCH, parse_arguments, serve, timed
from torch import nn


class Block(nn.Module):
    """A pre-activation block."""

    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x):
        """Returns (output of the block, its input after the first normalization)."""
        normalized = self.norm1(x)
        activated = F.relu(normalized)
        y = self.conv2(F.relu(self.norm2(self.conv1(activated))))
        return (x if self.shortcut is None else self.shortcut(activated)) + y, normalized


class WideResNet(nn.Module):
    """WRN whose features are the pre-ReLU maps after each block, normalized by the next one."""

    def __init__(self, depth, width, classes=100):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.groups, in_channels = nn.ModuleList(), 16
        for channels, stride in ((16, 1), (32, 2), (64, 2)):
            blocks = nn.ModuleList()
            for k in range((depth - 4) // 6):
                blocks.append(Block(in_channels, channels * width, stride if k == 0 else 1))
                in_channels = channels * width
            self.groups.append(blocks)
        self.norm, self.logits = nn.BatchNorm2d(in_channels), nn.Linear(in_channels, classes)

    def features(self, images, last):
        """Returns (features of the groups 1..last, the stream after group `last`)."""
        x, features = self.stem(images), []
        for g in range(last):
            outputs = []
            for k, block in enumerate(self.groups[g]):
                x, normalized = block(x)
                if k:
                    outputs.append(normalized)
            following = self.groups[g + 1][0].norm1 if g + 1 < len(self.groups) else self.norm
            # The next group, if it runs, normalizes x once more: a step may end here.
            outputs.append(following(x))
            features.append(outputs)
        return features, x

    def tail(self, stream, group):
        """Returns the logits of a stream that enters after `group`."""
        x = stream
        for blocks in self.groups[group:]:
            for block in blocks:
                x, _ = block(x)
        return self.logits(F.relu(self.norm(x)).mean((2, 3)))

    def forward(self, images):
        """Returns (features of all groups, logits). Each normalization runs once."""
        x, features = self.stem(images), []
        for g, blocks in enumerate(self.groups):
            for k, block in enumerate(blocks):
                x, normalized = block(x)
                if k or g:
                    features[-1].append(normalized)
                if k == 0:
                    features.append([])
        last = self.norm(x)
        features[-1].append(last)
        return features, self.logits(F.relu(last).mean((2, 3)))


def clip(x):
    """Preserves values no smaller than -1 (§3.4)."""
    return x.clamp(min=-1)


def partial_l2(s, t):
    """Distance of the distillation loss (Eqn 3), [B]."""
    t = t.clamp(min=-1)
    return torch.where((s > t) | (t > 0), s - t, 0).float().square().sum((1, 2, 3))


def channels_last(model):
    return model.to(memory_format=torch.channels_last)


def sgd(parameters):
    return torch.optim.SGD(
        parameters, 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, foreach=True
    )


class Steps:
    """Builds each step as a function without arguments that runs one iteration."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.teacher = channels_last(WideResNet(*arguments.teacher)).eval().requires_grad_(False)
        self.images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
        self.labels = torch.randint(0, 100, (BATCH,))
        self.teacher_channels = [width * arguments.teacher[1] for width in (16, 32, 64)]
        self.student_channels = [width * arguments.student[1] for width in (16, 32, 64)]

    def new_student(self):
        return channels_last(WideResNet(*self.arguments.student)).train()

    def cast(self):
        bfloat16 = self.arguments.precision == "bfloat16"
        return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)

    def compiled(self, function):
        return torch.compile(function) if self.arguments.compile else function

    def search(self, group):
        student = self.new_student()
        st = channels_last(
            nn.Conv2d(
                self.student_channels[group - 1], self.teacher_channels[group - 1], 1, bias=False
            )
        )
        ts = channels_last(
            nn.Conv2d(
                self.teacher_channels[group - 1], self.student_channels[group - 1], 1, bias=False
            )
        )
        beta = torch.zeros(len(self.teacher.groups[group - 1]), requires_grad=True)
        beta_optimizer = torch.optim.Adam([beta], 1e-3, (0.5, 0.999), weight_decay=1e-3)
        trained = nn.ModuleList([student, st, ts])
        w_optimizer = sgd(trained.parameters())

        def bridge_loss(alpha, features):
            aggregation = sum(a * clip(t) for a, t in zip(alpha, features, strict=True))
            student_features, _ = student.features(self.images, group)
            mapped = st(clip(student_features[-1][-1]))
            logits = student.tail(ts(aggregation), group)
            difference = F.normalize(mapped.float().flatten(1)) - F.normalize(
                aggregation.float().flatten(1)
            )
            st_loss = difference.square().sum(1)
            ts_loss = F.cross_entropy(logits.float(), self.labels, reduction="none")
            return (1e-3 * st_loss + ts_loss).mean()

        def teacher_features():
            with torch.no_grad():
                features, _ = self.teacher.features(self.images, group)
            return features[-1]

        def beta_loss():
            with self.cast():
                return bridge_loss(beta.softmax(0), teacher_features())

        def w_loss():
            with self.cast():
                return bridge_loss(beta.detach().softmax(0), teacher_features())

        beta_loss, w_loss = self.compiled(beta_loss), self.compiled(w_loss)

        def iterate():
            # The beta step needs no gradients of weights.
            trained.requires_grad_(False)
            beta_optimizer.zero_grad(set_to_none=True)
            beta_loss().backward()
            beta_optimizer.step()
            trained.requires_grad_(True)
            w_optimizer.zero_grad(set_to_none=True)
            w_loss().backward()
            w_optimizer.step()

        return iterate

    def distill(self):
        student = self.new_student()
        transforms = nn.ModuleList(
            channels_last(nn.Sequential(nn.Conv2d(s, t, 1, bias=False), nn.BatchNorm2d(t)))
            for s, t in zip(self.student_channels, self.teacher_channels, strict=True)
        )
        optimizer = sgd([*student.parameters(), *transforms.parameters()])
        alpha = [1 / len(blocks) for blocks in self.teacher.groups]

        def loss():
            with self.cast():
                with torch.no_grad():
                    features, _ = self.teacher(self.images)
                    targets = [a * sum(maps) for a, maps in zip(alpha, features, strict=True)]
                student_features, logits = student(self.images)
                distances = [
                    partial_l2(transform(maps[-1]), target) / 2 ** (2 - g)
                    for g, (transform, maps, target) in enumerate(
                        zip(transforms, student_features, targets, strict=True)
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
    steps = Steps(parse_arguments("--compile"))
    serve(
        search=lambda group: timed(steps.search(group)),
        distill=lambda: timed(steps.distill()),
        teacher_forward=lambda: timed(steps.teacher_forward()),
    )


if __name__ == "__main__":
    main()
