"""When a domain's adapter is trained again without a person: rules, what they react to, and the jobs they request."""
