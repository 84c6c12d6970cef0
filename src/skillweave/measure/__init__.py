"""How well it works, and how sure we are: one measure a file."""

MEASURES = {
    "exact": "skillweave.measure.score:evaluate",
}
