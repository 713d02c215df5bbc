"""Options of LAIR kernels that are none are refused by name, with one that would do."""

import pytest
from oracles import LinearGaussian

TRUTH = LinearGaussian.example()


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("HistoricalLAIRKernel", {"num_past": 0}, ValueError, "num_past must be .* >= 1, got 0"),
        ("HistoricalLAIRKernel", {"num_past": 3, "history_size": 2}, ValueError, "num_past=3, got"),
        ("HistoricalLAIRKernel", {"pick": "over time"}, TypeError, "pick must be a function"),
        ("MultiDrawLAIRKernel", {"num_draws": 0}, ValueError, "num_draws must be .* >= 1, got 0"),
        ("ScheduledLAIRKernel", {"num_prior": 0}, ValueError, "num_prior must be .* >= 1"),
        ("ScheduledLAIRKernel", {"replenish_every": 0}, ValueError, "replenish_every must be"),
        ("ScheduledLAIRKernel", {"power": 0.5}, TypeError, r"power must be a function of \(t\)"),
        ("ScheduledLAIRKernel", {"power": lambda t: t}, ValueError, r"at t = 0 it is 0\.0"),
        ("ScheduledLAIRKernel", {"power": lambda t: 2 - t}, ValueError, r"at t = 0 it is 2\.0"),
        ("ScheduledLAIRKernel", {"power": lambda t: 1 - t / 5}, ValueError, "at t = 10 it is -1"),
        ("LAIRKernel", {"num_particles": 2.0}, ValueError, "num_particles must be an integer"),
        ("LAIRKernel", {"transform": 0.5}, TypeError, r"transform must be a function.*got 0\.5"),
        (
            "LAIRKernel",
            {"log_denominator": "dmis"},
            TypeError,
            "log_denominator must be a function",
        ),
        (
            "LAIRKernel",
            {"log_denominator": None},
            TypeError,
            "such as `weighting.log_mixture`, got",
        ),
        ("LAIRKernel", {"resample": lambda: 0}, TypeError, r"log_weight, num_draws\), such as"),
        (
            "HistoricalLAIRKernel",
            {"pick": lambda h: h},
            TypeError,
            r"history, num_past, x_obs, mask",
        ),
    ],
)
def test_bad_options(backend, name, options, error, message):
    pair = backend.programs.linear_gaussian(TRUTH)
    with pytest.raises(error, match=message):
        getattr(backend.api, name)(*pair, **options)
    with pytest.raises(ValueError, match="num_iterations must be at least 1, got 0"):
        backend.api.weighting.poly(0)


@pytest.mark.parametrize(
    ("name", "option", "module", "maker", "remedy"),
    [
        ("LAIRKernel", "resample", "resampling", "local", r"local\(I\)"),
        ("LAIRKernel", "transform", "weighting", "temper", r"temper\(0\.5\)"),
        ("ScheduledLAIRKernel", "power", "weighting", "poly", r"poly\(T\)"),
    ],
)
def test_what_makes_functions_is_to_be_called(backend, name, option, module, maker, remedy):
    pair = backend.programs.linear_gaussian(TRUTH)
    maker = getattr(getattr(backend.api, module), maker)
    with pytest.raises(TypeError, match=rf"{option} must be what .* returns: write `{remedy}`"):
        getattr(backend.api, name)(*pair, **{option: maker})
