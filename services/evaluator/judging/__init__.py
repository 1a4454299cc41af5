"""How an answer becomes a judgement: the reference judge, models as judges, and agreement with people."""
