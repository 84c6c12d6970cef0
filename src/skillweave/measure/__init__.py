"""How well it works, and how sure we are: one measure a file."""

MEASURES = {
    "abilities": "skillweave.measure.abilities:ability_profile",
    "calibration": "skillweave.measure.localize:calibration_error",
    "exact": "skillweave.measure.score:evaluate",
    "overlap": "skillweave.measure.localize:overlap",
}
