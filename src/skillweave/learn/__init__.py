"""How a skill gets into a model: one method a file, one line a method."""

METHODS = {
    "full": "skillweave.learn.full:Full",
    "sft": "skillweave.learn.sft:SFT",
    "plp": "skillweave.learn.plp:PLP",
    "expand": "skillweave.learn.expand:Expand",
    "distill": "skillweave.learn.distill:Distill",
    "rejection": "skillweave.learn.rejection:Rejection",
    "selftrain": "skillweave.learn.selftrain:SelfTrain",
    "grpo": "skillweave.learn.grpo:GRPO",
}
