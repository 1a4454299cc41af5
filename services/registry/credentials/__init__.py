"""API keys, and tokens that are revoked.

The registry owns them beside the policies of domains: it has a database, and every service follows its facts already.
"""
