"""CPU-seconds per 60,000 images of importance-weighted training, and of evaluation with k = 5000.

An MLP 784-200-200-50 (tanh) with Adam, trained by `fit` on images that are binarised anew in each
step.  Each figure is extrapolated from fewer images.  The bare passes are those of the nets alone,
forward and backward, measured in the same run: one encoder pass an image, k decoder passes.

Run `OMP_NUM_THREADS=1 python benchmarks/iwae.py --backend numpyro` (or pyro, with `--jit-compile`
or without).
"""

import argparse
import os
import tempfile
import time
from itertools import pairwise

import numpy as np

PEERS = {  # github.com/nbip/IWAE, measured on another machine; images binarised once an epoch
    (20, 1): 19.8, (20, 5): 31.8, (20, 50): 71.3, (1000, 50): 72.1,
}  # fmt: skip
IMAGES = 60_000


def main(args):
    bench = NumPyro() if args.backend == "numpyro" else Pyro(args.jit_compile)
    print(f"{bench.versions}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("| batch | k | fit, CPU-s | bare passes, CPU-s | ratio | TF 2.21 elsewhere, CPU-s |")
    print("|---|---|---|---|---|---|")
    for batch in args.batches:
        for k in args.particles:
            print_row(bench, args, batch, k)
    seconds = bench.evaluate(args.evaluated) * 10_000 / args.evaluated
    print(f"k = 5000, 10,000 images: {seconds:.0f} CPU-s", flush=True)


def print_row(bench, args, batch, k):
    """One epoch and three of the same rows: what compiling and starting cost is in both."""
    steps = max(2, args.images // (batch * k))
    x = np.random.default_rng(0).random((batch * steps, 784)).astype("float32") ** 3
    bench.fit(x, batch, k, steps)  # compile, warm up
    one, three = (
        min_of(args.repeats, lambda n=n: bench.fit(x, batch, k, n * steps)) for n in (1, 3)
    )
    fit = (three - one) * IMAGES / (2 * len(x))
    bare = min_of(args.repeats, lambda: bench.bare(x[:batch], k)) * IMAGES / batch
    peer = PEERS.get((batch, k))
    shown = "-" if peer is None else f"{peer} ({peer / fit:.1f}x)"
    print(f"| {batch} | {k} | {fit:.1f} | {bare:.1f} | {fit / bare:.2f} | {shown} |", flush=True)


def min_of(repeats, run):
    return min(run() for _ in range(repeats))


def cpu_seconds(run):
    started = time.process_time()
    run()
    return time.process_time() - started


class NumPyro:
    """The NumPyro twin."""

    def __init__(self):
        # Each call of `fit` compiles its epoch; here it does so once.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp()
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        import jax
        import numpyro
        from flax import nnx

        import ppl_vae.numpyro as api

        self.jax, self.api = jax, api
        self.versions = f"jax {jax.__version__}, numpyro {numpyro.__version__}"

        class Net(nnx.Module):
            def __init__(self, sizes, num_outputs):
                rngs = nnx.Rngs(0)
                pairs = pairwise(sizes)
                self.body = nnx.List([nnx.Linear(i, o, rngs=rngs) for i, o in pairs])
                heads = [nnx.Linear(sizes[-1], o, rngs=rngs) for o in num_outputs]
                self.heads = nnx.List(heads)

            def __call__(self, h):
                for layer in self.body:
                    h = jax.numpy.tanh(layer(h))
                outputs = [head(h) for head in self.heads]
                return outputs[0] if len(outputs) == 1 else (outputs[0], jax.numpy.exp(outputs[1]))

        self.nets = lambda: {"encoder": Net((784, 200, 200), (50, 50)),
                             "decoder": Net((50, 200, 200), (784,))}  # fmt: skip

    def vae(self):
        return self.api.HierarchicalVAE((784,), (50,), ((200, 200),))

    def fit(self, x, batch, k, num_steps):
        key, objective = self.jax.random.key(0), self.api.IWAE(num_particles=k)
        options = {"objective": objective, "batch_size": batch, "progress_bar": False}
        options["transform"] = self.api.dynamic_binarisation
        x = x[: batch * num_steps]
        return cpu_seconds(lambda: self.api.fit(key, self.vae(), x, num_steps=num_steps, **options))

    def bare(self, x, k):
        jax, nets = self.jax, self.nets()
        from flax import nnx

        graphs, states = zip(*(nnx.split(nets[n]) for n in ("encoder", "decoder")), strict=True)

        def loss(states, x):
            loc, scale = nnx.merge(graphs[0], states[0])(x)
            z = jax.numpy.broadcast_to(loc + scale, (k, *loc.shape)).reshape(-1, loc.shape[-1])
            return nnx.merge(graphs[1], states[1])(z).sum()

        gradient = jax.jit(jax.grad(loss))
        run = lambda: jax.block_until_ready(gradient(states, x))  # noqa: E731
        run()
        return min_of(3, lambda: cpu_seconds(run))

    def evaluate(self, num_images):
        jax, vae = self.jax, self.vae()
        x = (np.random.default_rng(0).random((num_images, 784)) < 0.2).astype("float32")
        fitted = self.api.Fitted(vae, vae.initial_params(jax.random.key(0)))
        key, options = jax.random.key(1), {"num_particles": (1, 5000), "progress_bar": False}
        return cpu_seconds(
            lambda: self.api.log_likelihood(key, fitted.model, fitted.guide, x, **options)
        )


class Pyro:
    """The Pyro twin, with one thread."""

    def __init__(self, jit_compile):
        import pyro
        import torch

        import ppl_vae.pyro as api

        torch.set_num_threads(1)
        self.pyro, self.torch, self.api, self.jit_compile = pyro, torch, api, jit_compile
        self.versions = f"torch {torch.__version__}, pyro {pyro.__version__}"

        class Net(torch.nn.Module):
            def __init__(self, sizes, num_outputs):
                super().__init__()
                pairs = pairwise(sizes)
                self.body = torch.nn.ModuleList([torch.nn.Linear(i, o) for i, o in pairs])
                self.heads = torch.nn.ModuleList(
                    [torch.nn.Linear(sizes[-1], o) for o in num_outputs]
                )

            def forward(self, h):
                for layer in self.body:
                    h = torch.tanh(layer(h))
                outputs = [head(h) for head in self.heads]
                return outputs[0] if len(outputs) == 1 else (outputs[0], outputs[1].exp())

        self.nets = lambda: {"encoder": Net((784, 200, 200), (50, 50)),
                             "decoder": Net((50, 200, 200), (784,))}  # fmt: skip

    def vae(self):
        return self.api.HierarchicalVAE((784,), (50,), ((200, 200),))

    def fit(self, x, batch, k, num_steps):
        objective = self.api.IWAE(num_particles=k)
        options = {"objective": objective, "batch_size": batch, "progress_bar": False}
        options["transform"] = self.api.dynamic_binarisation
        options["jit_compile"] = self.jit_compile
        x = self.torch.as_tensor(x[: batch * num_steps])
        return cpu_seconds(lambda: self.api.fit(self.vae(), x, num_steps=num_steps, **options))

    def bare(self, x, k):
        nets, x = self.nets(), self.torch.as_tensor(x)

        def run():
            loc, scale = nets["encoder"](x)
            z = (loc + scale).expand(k, *loc.shape).reshape(-1, loc.shape[-1])
            nets["decoder"](z).sum().backward()

        run()
        return min_of(3, lambda: cpu_seconds(run))

    def evaluate(self, num_images):
        vae = self.vae()
        x = (self.torch.rand(num_images, 784) < 0.2).float()
        return cpu_seconds(
            lambda: self.api.log_likelihood(
                vae.model, vae.guide, x, num_particles=(1, 5000), progress_bar=False
            )
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["numpyro", "pyro"], default="numpyro")
    parser.add_argument("--jit-compile", action="store_true", help="compile the step (pyro)")
    parser.add_argument("--batches", type=int, nargs="+", default=[20, 1000])
    parser.add_argument("--particles", type=int, nargs="+", default=[1, 5, 50])
    parser.add_argument("--images", type=int, default=20_000, help="times k, per measurement")
    parser.add_argument("--evaluated", type=int, default=100, help="images of the evaluation")
    parser.add_argument("--repeats", type=int, default=2)
    main(parser.parse_args())
