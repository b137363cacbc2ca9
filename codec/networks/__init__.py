"""Networks (floor 2): configurations, blocks, transforms, priors, exact evaluation."""
