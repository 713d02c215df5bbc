"""How the experiments build, train, decode and evaluate programs, in NumPyro."""

import jax
import numpy as np
from burda import PRESETS, hidden_widths, last_stage, schedule
from experiment import weights_file
from jax import random
from numpyro import handlers

from ppl_vae import numpyro as api
from ppl_vae.pixels import pixel_logits
from ppl_vae.presets import PRESETS as OPTIMISERS

DEVICE = jax.devices()[0].platform
OBJECTIVES = {"VAE": api.ELBO, "IWAE": api.IWAE, "IWAE-STL": api.IWAESTL, "DReG": api.DReG}


def build(args, given, latent_dims):
    """A program with these stochastic layers, whose first pixels are the training set's mean."""
    return api.HierarchicalVAE(
        given.x_train.shape[1:],
        latent_dims,
        hidden_widths(args, latent_dims),
        output_bias=pixel_logits(given.x_train),
    )


def train(args, name, program, objective, given, *labels, num_stages=None, epochs=None):
    """Return the trained program; a second call goes on from where the first stopped.

    `epochs` ends the training before its time.
    """
    rates, num_steps = schedule(args, len(given.x_train), num_stages, epochs)
    return _fit(args, name, program, objective, given, labels, rates, num_steps)


def train_on(args, name, fitted, objective, given):
    """Return the program trained for as long as the last stage and at its rate."""
    rate, num_steps = last_stage(args, len(given.x_train))
    return _fit(args, name, fitted, objective, given, (), rate, num_steps)


def train_replicas(args, name, make_program, objective, given):
    """Return as many trained programs as the preset has seeds, trained side by side."""
    rates, num_steps = schedule(args, len(given.x_train))
    replicas = api.fit_replicas(
        random.key(args.seed),
        make_program,
        given.x_train,
        num_replicas=PRESETS[args.preset].num_seeds,
        **_options(args, name, objective, rates, num_steps),
    )
    for i, fitted in enumerate(replicas):
        fitted.save(weights_file(args, f"{name}_{i}", "safetensors"))
    return replicas


def _fit(args, name, program, objective, given, labels, rate, num_steps):
    options = _options(args, name, objective, rate, num_steps)
    fitted = api.fit(random.key(args.seed), program, given.x_train, *labels, **options)
    fitted.save(weights_file(args, name, "safetensors"))
    return fitted


def _options(args, name, objective, rate, num_steps):
    optimiser = OPTIMISERS[args.optimiser]
    return {
        "objective": objective,
        "num_steps": num_steps,
        "batch_size": optimiser.batch_size,
        "shuffle": optimiser.shuffle,
        "optimizer": api.preset_optimizer(optimiser, rate),
        "transform": api.dynamic_binarisation,
        "checkpoint": weights_file(args, name, "checkpoint"),
    }


def pixels(fitted, x, z, *labels):
    """Pixel probabilities at latents z, each (rows, L); x gives the number of rows, no more."""
    sites = handlers.trace(at(fitted.model, z)).get_trace(x, *labels)
    return np.asarray(sites["x"]["fn"].mean)


def latent_law(program, site, *arguments):
    """Mean and standard deviation of a latent site of a seeded model or guide, each (rows, L)."""
    law = handlers.trace(handlers.seed(program, 0)).get_trace(*arguments)[site]["fn"]
    return np.asarray(law.mean), np.asarray(law.variance) ** 0.5


def at(model, z):
    """The model with latents given."""
    return handlers.substitute(model, data=z)


def from_prior(fitted, noise, *arguments):
    """The prior's latents for given standard normal noise, the top layer first, each (rows, L)."""
    z = {}
    for site in sorted(noise, reverse=True):
        loc, scale = latent_law(at(fitted.model, z), site, *arguments)
        z[site] = loc + scale * noise[site]
    return z
