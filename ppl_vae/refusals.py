"""Why a program is refused whose densities change with what they must not depend on."""

__all__ = ["COUPLED", "DRAWS_ANEW", "READS_MISSING"]

DRAWS_ANEW = (
    "Run again, the {role} has other densities, those of row {{row}} by {{difference:.3g}}: its "
    "nets draw numbers of their own. Put them in evaluation mode, so that dropout drops nothing; "
    "weights that are drawn want one fixed draw."
)
COUPLED = (
    "The rows of the {role} are not independent: changing other rows changed the log density of "
    "row {{row}} by {{difference:.3g}}. Remove what couples rows, for example batch normalisation "
    "in training mode or a mean over the batch."
)
READS_MISSING = (
    "The model's densities of row {row} change with what is missing of x, by {difference:.3g}: no "
    "density of x_m given x_o follows from it. Let the model use x as `obs=x` and for its shape "
    "alone."
)
