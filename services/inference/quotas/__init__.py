"""What domains and callers may take of the whole fleet's answers: requests and tokens, in a minute and in a month."""

from services.inference.quotas.ledger import Ledger, Used
from services.inference.quotas.limits import Amounts, Quota, Quotas

__all__ = ["Amounts", "Ledger", "Quota", "Quotas", "Used"]
