"""Two trainings looked at while they go on, one particle and fifty, and made into films."""

import time
from shutil import copyfile

import matplotlib.pyplot as plt
from burda import PRESETS
from experiment import weights_file, whole
from matplotlib.animation import FuncAnimation, PillowWriter

TRAININGS = {"VAE": 1, "IWAE": 50}  # particles


def epochs(args):
    """When to look: after 1, 2, 4, ... epochs and at the end."""
    total = (3 ** PRESETS[args.preset].num_stages - 1) // 2
    return [2**i for i in range(total.bit_length()) if 2**i < total] + [total]


def looks(args, method):
    """Yield every look's epoch, and the name of the training that ends there.

    Each has its own checkpoint, begun as a copy of the one before: what a checkpoint was at an
    earlier look is not kept, and a second call looks at all of them again.
    """
    before = None
    for epoch in epochs(args):
        name = f"{method}_{epoch}"
        checkpoint = weights_file(args, name, "checkpoint")
        if before is not None and not checkpoint.exists():
            with whole(checkpoint) as part:
                copyfile(before, part)
        yield epoch, name
        before = checkpoint


def trainings(results, train, given):
    """Yield (method, snapshots, program, begin) of each that an earlier call has not finished.

    `train(method, num_particles, given)` yields a snapshot and the program at every look.
    """
    for method, num_particles in TRAININGS.items():
        if results.has(method):
            print(f"{method}: done before")
            continue
        print(f"{method}, k = {num_particles}:", flush=True)
        begin = time.perf_counter()
        *_, (_, program) = seen = list(train(method, num_particles, given))
        yield method, [snapshot for snapshot, _ in seen], program, begin


def save_film(fig, show, snapshots, path):
    """Write one frame a snapshot, drawn into `fig` by `show(snapshot)`, as GIF."""

    def frame(snapshot):
        show(snapshot)
        fig.suptitle(f"epoch {snapshot.epoch}")

    FuncAnimation(fig, frame, snapshots).save(path, PillowWriter(fps=2))
    plt.close(fig)
