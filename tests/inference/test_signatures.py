"""The twins have the same files, names, signatures and settings."""

import importlib
import inspect

import pytest
from kernel_parts import both_backends, module

pytest.importorskip("numpyro")
pytest.importorskip("pyro")

TWINS = both_backends()
HOSTS_OWN = {"MCMC"}  # the host's class, and its drop-in
MODULES = {"history", "resampling", "weighting"}
FILES = [
    "metropolis", "history", "resampling", "rows", "program", "likelihood", "contract", "mcmc",
    "pseudo_gibbs", "mwg", "ac_mwg", "lair", "weighting", "baselines", "guides", "streaming_lair",
    "pooling", "svi", "objectives", "analytic_elbo", "importance_weighted", "forward_kl",
    "diagnostics", "kernel_state", "starting", "missingness", "mnar_mwg", "mnar_lair",
    "historical_lair", "multi_draw_lair", "scheduled_lair", "clipped_pseudo_gibbs", "map_start",
    "hmc_refresh", "unconstrained", "conditional", "estimators", "grid_posterior",
    "doubly_reparameterised", "generalised_dreg", "reweighted_wake_sleep", "interpolated_bounds",
    "jackknife",
]  # fmt: skip
METHODS = ("start", "step", "collect", "bind", "redecode")


def parameters(fn):
    """Parameters of a function, but for the key, `params`, `jit_compile`, and for annotations."""
    allowed = {"key", "rng_key", "params", "jit_compile"}
    of_all = inspect.signature(fn).parameters.values()
    return [(p.name, p.kind, default(p)) for p in of_all if p.name not in allowed]


def default(parameter):
    """A default value; each twin's own function of the same name counts as the same."""
    return getattr(parameter.default, "__name__", parameter.default)


def test_public_names_are_the_same():
    numpyro, pyro = (backend.api for backend in TWINS)
    assert numpyro.__all__ == pyro.__all__


@pytest.mark.parametrize("name", sorted(set(TWINS[0].api.__all__) - HOSTS_OWN - MODULES))
def test_public_signatures_are_the_same(name):
    numpyro, pyro = (getattr(backend.api, name) for backend in TWINS)
    assert inspect.isclass(numpyro) == inspect.isclass(pyro)
    assert parameters(numpyro) == parameters(pyro)


@pytest.mark.parametrize("file", FILES)
def test_files_of_methods_have_the_same_names(file):
    modules = [module(backend, file) for backend in TWINS]
    names = [[n for n in m.__all__ if n not in ONLY_PYRO | ONLY_NUMPYRO] for m in modules]
    assert names[0] == names[1]


ONLY_NUMPYRO = {  # `row_tensors` in Pyro; what XLA would write out as an array
    "row_arrays", "twice_varying_log_prob", "refuse_undefined",
}  # fmt: skip
ONLY_PYRO = {  # NumPyro has `vmap`, and takes numpy arrays for its own
    "as_tensor", "fold_rows", "join", "map_tensors", "repeat_rows", "row_tensors", "unfold_rows",
    "stack_info", "LastDraws", "origin_of", "random_state", "set_random_state",
}  # fmt: skip


@pytest.mark.parametrize(
    "file",
    [
        "pseudo_gibbs",
        "mwg",
        "ac_mwg",
        "lair",
        "baselines",
        "weighting",
        "resampling",
        "missingness",
        "mnar_mwg",
        "mnar_lair",
        "historical_lair",
        "scheduled_lair",
        "clipped_pseudo_gibbs",
        "map_start",
        "hmc_refresh",
        "unconstrained",
        "importance_weighted",
        "estimators",
        "grid_posterior",
    ],
)
def test_equations_have_the_same_signatures(file):
    numpyro, pyro = (module(backend, file) for backend in TWINS)
    for name in numpyro.__all__:
        if name in ONLY_NUMPYRO:
            continue
        a, b = getattr(numpyro, name), getattr(pyro, name)
        if hasattr(a, "_fields"):
            assert a._fields == b._fields
            continue
        assert parameters(a) == parameters(b), name
        for method in METHODS:
            if hasattr(a, method) and hasattr(b, method):
                assert parameters(getattr(a, method)) == parameters(getattr(b, method)), method


def test_settings_of_kernels_are_the_same():
    numpyro, pyro = (importlib.import_module(f"ppl_vae.{b.name}") for b in TWINS)
    for name in ("PseudoGibbsKernel", "MWGKernel", "ACMWGKernel", "LAIRKernel"):
        assert getattr(numpyro, name).settings == getattr(pyro, name).settings


def test_layered_programs_have_the_same_signatures():
    twins = [backend.api for backend in TWINS]
    for name in ("HierarchicalVAE", "ConditionalVAE"):
        for method in ("__init__", "model", "guide", "architecture", "from_architecture"):
            ours, theirs = (
                inspect.signature(getattr(getattr(twin, name), method)).parameters for twin in twins
            )
            assert [(p.name, p.kind, p.default) for p in ours.values()] == [
                (p.name, p.kind, p.default) for p in theirs.values()
            ]
