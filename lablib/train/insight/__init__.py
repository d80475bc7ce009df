"""What a run tells of itself while it trains: the live line, stragglers, traces on demand, a look inside the layers."""

from lablib.train.insight.garbage import collect_all, collected_by_hand
from lablib.train.insight.insight import Insight

__all__ = ["Insight", "collect_all", "collected_by_hand"]
