"""How well it works, and how sure we are: one measure a file."""

MEASURES = {
    "abilities": "skillweave.measure.abilities:ability_profile",
    "exact": "skillweave.measure.score:evaluate",
}
