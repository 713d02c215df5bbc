"""Two trainings looked at while they go on, one particle and fifty, and made into films."""

import matplotlib.pyplot as plt
from burda import PRESETS
from matplotlib.animation import FuncAnimation, PillowWriter

TRAININGS = {"VAE": 1, "IWAE": 50}  # particles


def epochs(args):
    """When to look: after 1, 2, 4, ... epochs and at the end."""
    total = (3 ** PRESETS[args.preset].num_stages - 1) // 2
    return [2**i for i in range(total.bit_length()) if 2**i < total] + [total]


def trainings(results, train, given):
    """Yield (method, snapshots, program) of each that an earlier call has not finished.

    `train(method, num_particles, given)` yields a snapshot and the program at every look.
    """
    for method, num_particles in TRAININGS.items():
        if results.has(method):
            print(f"{method}: done before")
            continue
        print(f"{method}, k = {num_particles}:", flush=True)
        *_, (_, program) = looks = list(train(method, num_particles, given))
        yield method, [snapshot for snapshot, _ in looks], program


def save_film(fig, show, snapshots, path):
    """Write one frame a snapshot, drawn into `fig` by `show(snapshot)`, as GIF."""

    def frame(snapshot):
        show(snapshot)
        fig.suptitle(f"epoch {snapshot.epoch}")

    FuncAnimation(fig, frame, snapshots).save(path, PillowWriter(fps=2))
    plt.close(fig)
