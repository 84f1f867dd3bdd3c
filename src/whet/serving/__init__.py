"""The lighter model in production: a gateway that gives it 5 % of the traffic first, watches, grows or falls back."""
