"""Break the samplers on purpose, one line at a time: the suite must notice each.

Run `make mutants`, or `python tests/mutants.py --only q_ratio --backend pyro`.  Each mutant is
applied to a copy of the repository; the table says which test noticed it, or SURVIVED.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/inference/test_keys.py",
    "tests/inference/test_discrete_exact.py",
    "tests/inference/test_linear_gaussian.py",
    "tests/inference/test_two_modes.py",
    "tests/inference/test_likelihood_rules.py",
    "tests/inference/test_geweke_sbc.py",
    "tests/inference/test_parity.py",
    "tests/inference/test_invariants.py",
)
OWN_TESTS = {  # of methods that no other file tests
    "bernoulli.py": ("tests/inference/test_bernoulli.py",),
    "hmc_refresh.py": ("tests/inference/test_hmc_refresh.py",),
    "mnar_mwg.py": ("tests/inference/test_mnar.py",),
    "mnar_lair.py": ("tests/inference/test_mnar.py",),
    "scheduled_lair.py": ("tests/inference/test_lair_variants.py",),
    "importance_weighted.py": ("tests/inference/test_objectives.py",),
    "weighted_draws.py": ("tests/inference/test_estimators.py",),
    "doubly_reparameterised.py": ("tests/inference/test_gradient_estimators.py",),
    "objectives.py": (
        "tests/inference/test_training_batch.py",
        "tests/inference/test_objectives.py",
    ),
    "program.py": ("tests/inference/test_other_observed_sites.py",),
    "particles.py": (
        "tests/inference/test_particles.py",
        "tests/inference/test_weightless_particles.py",
    ),
}

# name: (file, what stands there in NumPyro, what the mutant says), then the same for Pyro.
MUTANTS = {
    "sign of the q-ratio": {
        "both": ("mwg.py", "+ log_q_old - log_q_new", "- log_q_old + log_q_new"),
    },
    "dropped q-ratio": {
        "both": ("mwg.py", " + log_q_old - log_q_new", ""),
    },
    "dropped prior": {
        "both": ("mwg.py", "return at.log_prior + likelihood_within(", "return likelihood_within("),
    },
    "what no x changes dropped from log p(x | z)": {
        "numpyro": ("mwg.py", "at.log_fixed + varying_log_prob", "varying_log_prob"),
    },
    "one random word for two entries": {
        "numpyro": ("bernoulli.py", "own >> 16, own & 0xFFFF", "own & 0xFFFF, own & 0xFFFF"),
        "pyro": ("bernoulli.py", ".random_()", ".random_(2**15).mul_(2**32 + 1)"),
    },
    "mask dropped from log p(x_o | z)": {
        "numpyro": (
            "likelihood.py",
            "jnp.where(mask, _entry_log_prob(_entrywise(d), x), 0.0)",
            "_entry_log_prob(_entrywise(d), x)",
        ),
        "pyro": ("likelihood.py", "keep(mask, _entry_log", "keep(mask | True, _entry_log"),
    },
    "mask inverted": {
        "numpyro": (
            "likelihood.py",
            "jnp.where(mask, _entry_log_prob(_entrywise(d), x), 0.0)",
            "jnp.where(mask, 0.0, _entry_log_prob(_entrywise(d), x))",
        ),
        "pyro": ("likelihood.py", "keep(mask, _entry_log", "keep(~mask, _entry_log"),
    },
    "history includes the current state's own imputation": {
        "numpyro": (
            "history.py",
            "enters = left & (random.uniform(key_enter, (num_rows,)) * "
            "total < size * history.stay)",
            "enters = left | True",
        ),
        "pyro": (
            "history.py",
            "enters = left & (torch.rand_like(total) * total < size * history.stay)",
            "enters = left | True",
        ),
    },
    "sign of the AC-MWG ratio's proposal": {
        "both": (
            "ac_mwg.py",
            "at.log_prior + at.log_observed - log_q_eps",
            "at.log_prior + at.log_observed + log_q_eps",
        ),
    },
    "AC-MWG mixture without the prior part": {
        "numpyro": (
            "ac_mwg.py",
            "jnp.logaddexp(jnp.log1p(-eps) + log_q, jnp.log(eps) + log_prior)",
            "jnp.log1p(-eps) + log_q",
        ),
        "pyro": (
            "ac_mwg.py",
            "torch.logaddexp(torch.log1p(-eps) + log_q, torch.log(eps) + log_prior)",
            "torch.log1p(-eps) + log_q",
        ),
    },
    "LAIR mixture without the prior part": {
        "both": ("weighting.py", "if num_prior > 0:", "if num_prior < 0:"),
    },
    "resampling without weights": {
        "numpyro": (
            "lair.py",
            "resample(key_ancestor, chosen_by, num_particles)",
            "resample(key_ancestor, 0 * chosen_by, num_particles)",
        ),
        "pyro": (
            "lair.py",
            "resample(chosen_by, num_particles)",
            "resample(0 * chosen_by, num_particles)",
        ),
    },
    "MNAR: the mask's density left out of LAIR's weights": {
        "both": ("mnar_lair.py", "proposed.log_weight + log_missing", "proposed.log_weight"),
    },
    "MNAR: every proposed x accepted": {
        "both": ("mnar_mwg.py", "log_missing_new - log_missing", "log_missing_new * 0"),
    },
    "scheduled LAIR: absent prior proposals still share in the mean": {
        "both": ("scheduled_lair.py", "+ log(num_particles / (num_particles + num_prior))", ""),
    },
    "HMC: every move accepted": {
        "both": ("hmc_refresh.py", "select_rows(accepted, p", "select_rows(accepted | True, p"),
    },
    "HMC: the Jacobian left out": {
        "both": ("hmc_refresh.py", "proposed.log_observed + log_det_new", "proposed.log_observed"),
    },
    "IWAE: mean of the logs": {
        "numpyro": (
            "importance_weighted.py",
            "log_mean_exp(self.log_weight(key, program))",
            "self.log_weight(key, program).mean(0)",
        ),
        "pyro": (
            "importance_weighted.py",
            "log_mean_exp(self.log_weight(program))",
            "self.log_weight(program).mean(0)",
        ),
    },
    "IWAE: the mean over the batch inside the logarithm": {
        "numpyro": (
            "importance_weighted.py",
            "log_mean_exp(self.log_weight(key, program))",
            "log_mean_exp(self.log_weight(key, program).sum(1))",
        ),
        "pyro": (
            "importance_weighted.py",
            "log_mean_exp(self.log_weight(program))",
            "log_mean_exp(self.log_weight(program).sum(1))",
        ),
    },
    "log w: the guide's density left out": {
        "numpyro": ("objectives.py", "log_prior - log_q)", "log_prior)"),
        "pyro": (
            "objectives.py",
            "log_prob(latent) - self.log_proposal(program, guide)",
            "log_prob(latent)",
        ),
    },
    "DReG: the share in place of its square": {
        "both": (
            "doubly_reparameterised.py",
            "self.kl_weight * share**2",
            "self.kl_weight * share",
        ),
    },
    "DReG: kl_weight left out of the weights": {
        "both": (
            "doubly_reparameterised.py",
            "times(self.kl_weight, terms.log_prior - terms.log_q)",
            "(terms.log_prior - terms.log_q)",
        ),
    },
    "ELBO: kl_weight left out": {
        "numpyro": (
            "objectives.py",
            "times(self.kl_weight, log_prior - log_q)",
            "(log_prior - log_q)",
        ),
        "pyro": ("objectives.py", "times(self.kl_weight, log_ratio)", "log_ratio"),
    },
    "particles without weight reach the gradient": {
        "numpyro": (
            "particles.py",
            "jnp.where(counts, weight * jnp.where(counts, log_density, 0.0), 0.0)",
            "weight * log_density",
        ),
        "pyro": (
            "particles.py",
            "(weight * log_density.masked_fill(zero, 0.0)).masked_fill(zero, 0.0)",
            "weight * log_density",
        ),
    },
    "chunks hold their activations": {
        "numpyro": ("particles.py", "jax.checkpoint(of_one_particle)", "of_one_particle"),
        "pyro": (
            "particles.py",
            "checkpoint(of_chunk, part, use_reentrant=False)",
            "of_chunk(part)",
        ),
    },
    "the same key for every particle": {
        "numpyro": (
            "objectives.py",
            "(random.split(key, self.num_particles))",
            "(random.split(key, 1)[[0] * self.num_particles])",
        ),
    },
    "log p(x_o): the prior left out": {
        "both": (
            "weighted_draws.py",
            "return sum(self.log_prior.values(), self.log_observed)",
            "return self.log_observed",
        ),
    },
    "other observed sites taken for a part of the prior": {
        "both": (
            "program.py",
            "latent, observed = split_sites(sites)",
            "latent, observed = sites, {}",
        ),
    },
    "rows of a subsampled plate count once": {
        "numpyro": ("objectives.py", "-scale * objective", "-objective"),
        "pyro": ("objectives.py", "-scale * objective", "-objective"),
    },
    "key reused": {
        "numpyro": (
            "mwg.py",
            "key_z, key_accept = random.split(key)",
            "key_z = key_accept = key",
        ),
    },
    "observed entries drawn anew": {
        "both": ("likelihood.py", "where(mask, x, drawn", "where(mask & False, x, drawn"),
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of the mutants' names")
    parser.add_argument("--backend", choices=["numpyro", "pyro"], help="one twin only")
    args = parser.parse_args()
    survivors = 0
    for backend in [args.backend] if args.backend else ["numpyro", "pyro"]:
        for name, versions in MUTANTS.items():
            change = versions.get(backend, versions.get("both"))
            if change is None or args.only not in name:
                continue
            killer = killed_by(backend, *change)
            survivors += killer is None
            print(f"{backend:8} {name:52} {killer or 'SURVIVED'}", flush=True)
    print(f"{survivors} survived")
    return 1 if survivors else 0


def killed_by(backend: str, file: str, old: str, new: str) -> str | None:
    """Return the first test that fails on the mutant, or None."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".venv*", ".git", "out", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
        path = copy / "ppl_vae" / "inference" / backend / file
        text = path.read_text()
        if old not in text:
            raise SystemExit(f"The mutant of {path.name} no longer applies: {old!r} is not there.")
        path.write_text(text.replace(old, new))
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-k",
            {"numpyro": "numpyro or keys", "pyro": "pyro and not numpyro"}[backend],
            "-p",
            "no:cacheprovider",
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": str(copy),
            "OMP_NUM_THREADS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax"),
        }
        command += OWN_TESTS.get(file, TESTS)
        run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    failed = re.search(r"^(FAILED|ERROR) \S*?(test_\w+\.py\S*)", run.stdout, re.MULTILINE)
    return failed.group(2) if failed else None


if __name__ == "__main__":
    raise SystemExit(main())
