"""How several skills work as one: one method a file, one line a method."""

METHODS = {
    "sum": "skillweave.compose.sum:Sum",
    "scales": "skillweave.compose.scales:Scales",
    "scales+lora": "skillweave.compose.scales:ScalesWithLora",
}
