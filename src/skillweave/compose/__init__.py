"""How several skills work as one: one method a file, one line a method."""

METHODS = {
    "sum": "skillweave.compose.sum:Sum",
    "subtract": "skillweave.compose.sum:Subtract",
    "magnitude": "skillweave.compose.thin:Magnitude",
    "ties": "skillweave.compose.thin:Ties",
    "knots": "skillweave.compose.thin:Knots",
    "dare": "skillweave.compose.thin:Dare",
    "dare-ties": "skillweave.compose.thin:DareTies",
    "della": "skillweave.compose.thin:Della",
    "breadcrumbs": "skillweave.compose.thin:Breadcrumbs",
    "graft": "skillweave.compose.graft:Graft",
    "scales": "skillweave.compose.scales:Scales",
    "scales+lora": "skillweave.compose.scales:ScalesWithLora",
    "declared": "skillweave.compose.declared:Declared",
    "context": "skillweave.compose.context:Context",
    "lorahub": "skillweave.compose.lorahub:LoraHub",
    "arrow": "skillweave.compose.arrow:Arrow",
    "router": "skillweave.compose.router:Router",
    "bridge": "skillweave.compose.bridge:Bridge",
    "factors": "skillweave.compose.factors:JoinFactors",
}

KINDS: dict[str, str] = {
    "context": "skillweave.compose.context:Gated",
    "routed": "skillweave.compose.routing:Routes",
    "bridge": "skillweave.compose.bridge:Bridged",
    "expand": "skillweave.learn.depth:Deeper",
}
"""Who reads a skill that is not one adapter, by the `kind` in its composition.json: `load(folder, base, name) -> Active`."""
