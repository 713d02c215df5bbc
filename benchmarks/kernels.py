"""Milliseconds per iteration of each kernel, over the bare network passes in the same run.

The nets are an MLP 784-200-200-50 with random weights; half of the pixels are missing.  The bare
pass is one encoder and one decoder pass over the same rows and particles, nothing else.

Run `python benchmarks/kernels.py --backend numpyro` (or pyro, with `--jit-compile` or without);
`--rows 1 64 512`, `--particles 5`.
"""

import argparse
import os
import platform
import time

import numpy as np

KERNELS = ("PseudoGibbsKernel", "MWGKernel", "ACMWGKernel", "LAIRKernel")


def main(args):
    print(f"{args.backend} on {platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    bench = NumPyro() if args.backend == "numpyro" else Pyro(args.jit_compile)
    print(f"{bench.device}; {bench.versions}")
    print("| rows x particles | bare pass, ms | " + " | ".join(KERNELS) + " |")
    print("|---|---|" + "---|" * len(KERNELS))
    for particles in args.particles:
        for rows in args.rows:
            print_row(bench, args, rows, particles)


def print_row(bench, args, rows, particles):
    """Time the bare pass and the kernels in turn, several times, and print medians and ratios."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (rows, 784)).astype("float32")
    mask = rng.random((rows, 784)) < 0.5
    runs = {"bare": bench.bare(rows, particles)}
    for name in KERNELS:
        runs[name] = bench.kernel(name, x, mask, particles)
    for run in runs.values():
        run(4)  # compile, warm up
    num_steps = max(3, int(args.budget / max(seconds_of(runs["bare"], 3), 1e-5)))
    times = {name: [] for name in runs}
    for _ in range(args.repeats):
        for name, run in runs.items():
            times[name].append(seconds_of(run, num_steps))
    medians = {name: 1e3 * np.median(value) for name, value in times.items()}
    bare = medians.pop("bare")
    cells = [f"{value:.2f} ({value / bare:.1f}x)" for value in medians.values()]
    print(f"| {rows} x {particles} | {bare:.2f} | " + " | ".join(cells) + " |", flush=True)


def seconds_of(run, num_steps):
    """Seconds per iteration."""
    started = time.perf_counter()
    run(num_steps)
    return (time.perf_counter() - started) / num_steps


class NumPyro:
    """Each run is one compiled loop over iterations, as inside `numpyro.infer.MCMC`."""

    def __init__(self):
        import jax
        import numpyro

        import ppl_vae.numpyro as api

        self.jax, self.api = jax, api
        self.device = str(jax.devices()[0])
        self.versions = f"jax {jax.__version__}, numpyro {numpyro.__version__}"
        self.vae = api.VAE((784,), 50, hidden=(200, 200))
        self.params = self.vae.initial_params(jax.random.key(0))

    def bare(self, rows, particles):
        jax, vae = self.jax, self.vae
        encoder = vae.encoder.with_params(self.params["encoder$params"])
        decoder = vae.decoder.with_params(self.params["decoder$params"])

        def body(_, x):
            loc, _scale = encoder(x)
            return decoder(loc)

        loop = jax.jit(lambda n, x: jax.lax.fori_loop(0, n, body, x))
        x = jax.numpy.ones((particles * rows, 784))
        return lambda n: loop(n, x).block_until_ready()

    def kernel(self, name, x, mask, particles):
        jax = self.jax
        kind = getattr(self.api, name)
        options = {"params": self.params}
        chains = particles
        if name == "LAIRKernel":
            options["num_particles"], chains = particles - 1, 1
        kernel = kind(self.vae.model, self.vae.guide, **options)
        kwargs = {"mask": mask}
        keys = jax.random.split(jax.random.key(1), chains)
        state = kernel.init(keys, 0, None, (x,), kwargs)
        sample = lambda _, state, x, mask: kernel.sample(state, (x,), {"mask": mask})  # noqa: E731
        loop = jax.jit(
            lambda n, state, x, mask: jax.lax.fori_loop(
                0, n, lambda i, s: sample(i, s, x, mask), state
            )
        )
        return lambda n: jax.block_until_ready(loop(n, state, x, mask).rng_key)


class Pyro:
    """Each run is a Python loop over iterations, as inside `ppl_vae.pyro.MCMC`."""

    def __init__(self, jit_compile):
        import pyro
        import torch

        import ppl_vae.pyro as api

        self.pyro, self.torch, self.api, self.jit_compile = pyro, torch, api, jit_compile
        self.place = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.cuda.get_device_name() if self.place == "cuda" else "cpu"
        self.versions = f"torch {torch.__version__}, pyro {pyro.__version__}"
        pyro.set_rng_seed(0)
        self.vae = api.VAE((784,), 50, hidden=(200, 200)).to(self.place)

    def synchronise(self):
        if self.place == "cuda":
            self.torch.cuda.synchronize()

    def bare(self, rows, particles):
        torch, vae = self.torch, self.vae
        x = torch.ones(particles * rows, 784, device=self.place)

        def run(n):
            with torch.inference_mode():
                for _ in range(n):
                    vae.decoder(vae.encoder(x)[0])
            self.synchronise()

        return run

    def kernel(self, name, x, mask, particles):
        torch = self.torch
        options, chains = {}, particles
        if name == "LAIRKernel":
            options["num_particles"], chains = particles - 1, 1
        kernel = getattr(self.api, name)(self.vae.model, self.vae.guide, **options)
        x, mask = torch.as_tensor(x, device=self.place), torch.as_tensor(mask, device=self.place)
        data = ((x,), {"mask": mask})
        state = kernel.init(chains, None, *data, jit_compile=self.jit_compile)

        def run(n):
            now = state
            with self.pyro.validation_enabled(False):
                for _ in range(n):
                    now = kernel.advance(now)
            self.synchronise()

        return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["numpyro", "pyro"], default="numpyro")
    parser.add_argument("--jit-compile", action="store_true", help="compile the step (pyro)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--particles", type=int, nargs="+", default=[5, 100])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", type=float, default=0.3, help="seconds per timed bare run")
    main(parser.parse_args())
