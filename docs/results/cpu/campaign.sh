#!/bin/sh
# Runs the experiments of this page, in order, from the root of a checkout:
#
#   sh docs/results/cpu/campaign.sh [--data_dir=... --workdir=... --results=... --shard=k/n]
#
# Finished cells are skipped, and an interrupted cell continues. With --shard, several processes
# share the cells.
run() {
    bin/reproduce "$@" --scale=cpu
}
set -- --results=docs/results/cpu "$@"
run methods --seeds=3 "$@"                           # 1. is distillation, and the search, worth it?
run alpha --seeds=3 "$@"                             # 2. does the search matter?
run alpha --only=random --seeds=10 "$@"
run settled --seeds=1 "$@"                           # are fewer epochs enough?
run features --seeds=3 "$@"                          # 3. what is a feature?
run table2 --seeds=3 "$@"                            # 4. the other methods
run gamma --seeds=3 "$@"                             # 5. what the paper leaves open
run init --seeds=3 "$@"
run headline --seeds=3 "$@"                          # 6. all images
run table4 --seeds=3 "$@"                            # 7. CINIC-10
run adaptive --seeds=3 --only=adaptive,paths_equal,adaptive_replayed "$@"    # 8. the other systems
run feed --seeds=3 --only=student,feed_of_1,feed_of_3 "$@"
run distpro --seeds=3 --only=distpro,pathways "$@"
run joint --seeds=3 "$@"                             # 9. one search of all groups
run views --seeds=3 "$@"                             # cached logits
