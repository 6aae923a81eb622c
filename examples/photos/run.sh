#!/bin/sh
# Runs the steps of docs/photos.md, from photos to the answers of a TF Lite file:
#
#   sh examples/photos/run.sh [flags of the training commands]
#
# Without other settings, the photos are crops of scikit-learn's two photos, and the networks start
# from initial weights. Environment variables:
#
#   ARCHIVE=cinic10.tar.gz    make the photos from CINIC-10, or from a part of it
#   PRETRAINING=1             pretrain both networks on CIFAR-100 first
#   FOLDER=...                where to write, in place of the checkout's runs/photos, which
#                             PRETRAINING needs
#
# Photos that FOLDER already contains are kept.
set -e
archive=${ARCHIVE:+$(realpath "$ARCHIVE")}
folder=${FOLDER:+$(realpath -m "$FOLDER")}
cd "$(dirname "$0")/../.."
folder=${folder:-runs/photos}
config=examples/photos/small.gin
python=$(python3 bin/environment.py)

if [ ! -d "$folder/photos" ]; then
    rm -rf "$folder/part"  # of an interrupted run
    "$python" examples/photos/make_photos.py "$folder/part" ${archive:+--archive="$archive"}
    mv "$folder/part" "$folder/photos"
fi

if [ -n "$PRETRAINING" ]; then
    config=examples/photos/pretrained.gin
    for network in MobileNetV2 MobileNetV3Small; do
        bin/train_teacher --gin_file=examples/photos/pretraining.gin "$@" \
            --gin_bindings="teacher/keras_application.name=\"$network\"" \
            --workdir="$folder/pretrained/$network"
    done
fi

set -- --gin_file=$config --gin_bindings="dataset.name=\"folder:$folder/photos\"" \
    --workdir="$folder/run" "$@"
bin/search --describe "$@"
bin/distill "$@"
bin/export "$@"
bin/evaluate "$@"
find "$folder/photos/test" -name '*0.jpg' -print0 | sort -z | head -z -n 5 |
    xargs -0 "$python" examples/python/classify.py "$folder/run/export/student_int8.tflite"
