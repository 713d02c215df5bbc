"""One or two normal latents a row, in the words of both twins, and their bounds by quadrature.

The prior is fixed, or learned where it has parameters; it may depend on a label of each row.
"""

from dataclasses import dataclass

import numpy as np
from host_words import words
from kernel_parts import real
from scipy import stats
from scipy.special import expit

BIAS = np.array([0.5, -1.0, 0.3])
NOISE = 0.8  # of x given the last latent
LINK = 0.7  # of the second latent to the first
FIXED_PRIOR = {
    "prior_gain": 0.0,
    "prior_shift": 0.0,
    "prior_scale": 1.0,
    "step": LINK,
    "step_scale": 1.0,
}


@dataclass(frozen=True, eq=False)
class Chain:
    """z_1 ~ N(0, 1), (z_2 ~ N(LINK z_1, 1)), x ~ N(weight z_last + BIAS, NOISE^2).

    With a learned prior, z_1 ~ N(prior_gain label + prior_shift, prior_scale^2) and
    z_2 ~ N(step z_1, step_scale^2).
    """

    parameters: dict[str, np.ndarray]

    @property
    def num_sites(self):
        return 2 if "link" in self.parameters else 1

    def on(self, backend):
        """The parameters as arrays of the twin."""
        return {name: real(backend, value) for name, value in self.parameters.items()}

    def pair(self, backend):
        """The program as (model, guide), its parameters those of the host."""
        ppl, first = words(backend), self.on(backend)
        names = ["z1", "z2"][: self.num_sites]

        def param(name):
            return ppl.param(name, first[name] + 0.0)  # a copy: Pyro's share the memory

        def of_prior(name):
            return param(name) if name in first else FIXED_PRIOR[name]

        def model(x, label=0.0):
            weight = param("weight")
            with ppl.plate("rows", x.shape[0]):
                loc = of_prior("prior_gain") * label + of_prior("prior_shift") + 0 * x[:, 0]
                z = ppl.sample("z1", ppl.dist.Normal(loc, of_prior("prior_scale")))
                if "z2" in names:
                    step = ppl.dist.Normal(of_prior("step") * z, of_prior("step_scale"))
                    z = ppl.sample("z2", step)
                loc = z[..., None] * weight + real(backend, BIAS)
                ppl.sample("x", ppl.dist.Normal(loc, NOISE).to_event(1), obs=x)

        def guide(x, label=0.0):
            del label
            loc = x @ param("gain") + param("shift")
            with ppl.plate("rows", x.shape[0]):
                z = ppl.sample("z1", ppl.dist.Normal(loc, param("scale") + 0 * loc))
                if "z2" in names:
                    loc = param("link") * z + x @ param("gain2") + param("shift2")
                    ppl.sample("z2", ppl.dist.Normal(loc, param("scale2") + 0 * loc))

        return model, guide

    # --- densities at latents z, a list of one or two arrays (B, nodes) -------------------------

    def nodes(self, x, num_nodes):
        """The guide's draws at the nodes, each (B, nodes^sites), and the nodes' weights."""
        p = self.parameters
        nodes, shares = np.polynomial.hermite_e.hermegauss(num_nodes)
        shares = shares / shares.sum()
        z1 = (x @ p["gain"] + p["shift"])[:, None] + p["scale"] * nodes
        if self.num_sites == 1:
            return [z1], shares
        z1, e2 = np.repeat(z1, num_nodes, 1), np.tile(nodes, num_nodes)
        z2 = p["link"] * z1 + (x @ p["gain2"] + p["shift2"])[:, None] + p["scale2"] * e2
        return [z1, z2], np.repeat(shares, num_nodes) * np.tile(shares, num_nodes)

    def log_q(self, z, x):
        p = self.parameters
        log_q = stats.norm.logpdf(z[0], (x @ p["gain"] + p["shift"])[:, None], p["scale"])
        if self.num_sites == 1:
            return log_q
        loc = p["link"] * z[0] + (x @ p["gain2"] + p["shift2"])[:, None]
        return log_q + stats.norm.logpdf(z[1], loc, p["scale2"])

    def log_prior(self, z, label):
        p = {**FIXED_PRIOR, **self.parameters}
        loc = p["prior_gain"] * np.reshape(label, (-1, 1)) + p["prior_shift"]
        log_prior = stats.norm.logpdf(z[0], loc, p["prior_scale"])
        if self.num_sites == 1:
            return log_prior
        return log_prior + stats.norm.logpdf(z[1], p["step"] * z[0], p["step_scale"])

    def log_observed(self, z, x, mask):
        loc = z[-1][..., None] * self.parameters["weight"] + BIAS
        return np.where(mask[:, None], stats.norm.logpdf(x[:, None], loc, NOISE), 0.0).sum(-1)

    def log_weights(self, x, mask, kl_weight, num_nodes, label=0.0):
        """Log weights of a row at the nodes (B, nodes^sites), and the nodes' weights."""
        x = np.where(mask, x, 0.0)
        z, shares = self.nodes(x, num_nodes)
        log_ratio = self.log_prior(z, label) - self.log_q(z, x)
        return self.log_observed(z, x, mask) + kl_weight * log_ratio, shares

    # --- what objectives estimate ---------------------------------------------------------------

    @property
    def num_nodes(self):
        return {1: 40, 2: 14}[self.num_sites]

    def bound(self, x, mask, num_particles=1, kl_weight=1.0, label=0.0):
        """The expected bound of one or two particles, summed over rows."""
        log_weight, shares = self.log_weights(x, mask, kl_weight, self.num_nodes, label)
        if num_particles == 1:
            return float((log_weight @ shares).sum())
        pairs = np.logaddexp(log_weight[:, :, None], log_weight[:, None]) - np.log(2)
        return float((pairs @ shares @ shares).sum())

    def gradient(self, x, mask, **options):
        """The gradient of `bound`, one long vector in the order of `flat`.

        One particle is exact to 1e-8, two to some 0.001 a row: the nodes see a kink.
        """
        return self.derivative(lambda chain: chain.bound(x, mask, **options))

    def wake_gradient(self, x, mask, label=0.0):
        """The expected sum of s_k d log q(z_k | x) / d phi over two particles and all rows."""
        log_weight, shares = self.log_weights(x, mask, 1.0, self.num_nodes, label)
        share_of_first = expit(log_weight[:, :, None] - log_weight[:, None])
        expected = 2 * shares * (share_of_first @ shares)
        x = np.where(mask, x, 0.0)
        z, _ = self.nodes(x, self.num_nodes)
        return self.derivative(lambda chain: float((expected * chain.log_q(z, x)).sum()))

    def derivative(self, fn):
        """The derivative of `fn(chain)` by the parameters, in the order of `flat`."""
        start = flat(self.parameters)
        columns = np.eye(len(start)) * 1e-5
        ends = [[fn(self.at(start + sign * step)) for sign in (1, -1)] for step in columns]
        return np.array([(up - down) / 2e-5 for up, down in ends])

    @property
    def of_guide(self):
        """Which entries of a vector in the order of `flat` are parameters of the guide."""
        guide = {"gain", "shift", "scale", "link", "gain2", "shift2", "scale2"}
        parts = {n: np.full(np.shape(v), n in guide) for n, v in self.parameters.items()}
        return flat(parts)

    def at(self, vector):
        """The chain with other parameters, given in the order of `flat`."""
        out, begin = {}, 0
        for name in sorted(self.parameters):
            shape = np.shape(self.parameters[name])
            end = begin + int(np.prod(shape))
            out[name] = vector[begin:end].reshape(shape)
            begin = end
        return Chain(out)

    def with_exact_guide(self):
        """The same model with q(z | x) = p(z | x) for complete rows."""
        w, p = self.parameters["weight"], dict(self.parameters)
        if self.num_sites == 1:
            p.update(regression(w, NOISE**2 * np.eye(len(w))))
            return Chain(p)
        p.update(regression(LINK * w, np.outer(w, w) + NOISE**2 * np.eye(len(w))))
        second = regression(w, NOISE**2 * np.eye(len(w)))
        p.update({f"{name}2": value for name, value in second.items()})
        p["link"] = LINK * second["scale"] ** 2
        return Chain(p)


def regression(weight, covariance, bias=BIAS):
    """The guide of z ~ N(0, 1) given x ~ N(weight z + bias, covariance)."""
    solved = np.linalg.solve(covariance, weight)
    variance = 1 / (1 + weight @ solved)
    gain = variance * solved
    return {"gain": gain, "shift": -gain @ bias, "scale": np.sqrt(variance)}


def flat(parameters):
    return np.concatenate([np.ravel(parameters[name]) for name in sorted(parameters)])


WEIGHT = np.array([1.0, -0.6, 0.4])
GAIN = np.array([0.3, 0.1, -0.2])
ONE = Chain({"weight": WEIGHT, "gain": GAIN, "shift": np.array(0.2), "scale": np.array(0.9)})
TWO = Chain(
    {
        **ONE.parameters,
        "link": np.array(0.4),
        "gain2": -GAIN,
        "shift2": np.array(-0.1),
        "scale2": np.array(0.7),
    }
)
PRIOR = {"prior_gain": np.array(0.8), "prior_shift": np.array(-0.4), "prior_scale": np.array(1.3)}
STEP = {"step": np.array(0.9), "step_scale": np.array(0.8)}
CONDITIONAL_ONE = Chain({**ONE.parameters, **PRIOR})
CONDITIONAL_TWO = Chain({**TWO.parameters, **PRIOR, **STEP})
