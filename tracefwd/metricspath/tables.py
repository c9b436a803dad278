"""What a source's scrapes share: its rules, its filters' verdicts, and the memo tables that make the hot loop fast.

Every table is bounded; what is forgotten is worked out again.  Pure.
"""

import math

from tracefwd.errors import ConfigError
from tracefwd.limits import BLOCK_MEMO_CHARS_MAX
from tracefwd.metricspath import deltas, filters, go_numbers
from tracefwd.metricspath.collector import CollectorTags
from tracefwd.metricspath.filters import Filter
from tracefwd.metricspath.histograms import Distributions
from tracefwd.metricspath.memo import remember
from tracefwd.metricspath.names import Names
from tracefwd.metricspath.parser import read_labels
from tracefwd.metricspath.report import Watch
from tracefwd.metricspath.tags import Rendered, TagRules
from tracefwd.settings import MetricsSettings, PrometheusSourceSettings

# A block that is no list of labels; its lines are read one by one, which finds the reason.
ODD = Rendered("", "labels")


def check(source: PrometheusSourceSettings, where: str) -> list[str]:
    """One sentence for each thing in ``source`` that no translation can be made of; empty if one can."""
    return [*filters.check(source.filters, f"{where}.filters"), *deltas.check(source, where)]


class Tables:
    """One source's.  Raises ``ConfigError`` if a glob cannot be used or deltas would be wrong."""

    def __init__(
        self, source: PrometheusSourceSettings, metrics: MetricsSettings, where: str
    ) -> None:
        bad = deltas.check(source, where)
        if bad:
            raise ConfigError(bad)
        self.is_collector = metrics.mode == "collector"
        self.metrics = metrics
        own = Filter(source.filters, f"{where}.filters")
        common = Filter(metrics.filters, "metrics.filters")
        self.rules = (CollectorTags if self.is_collector else TagRules)(
            source, metrics, (own, common)
        )
        self.watch = Watch((source.filters, metrics.filters))
        self.names = Names(
            source,
            metrics,
            lambda name: own.judge_name(name) or common.judge_name(name),
            self.watch.seen,
        )
        self.denied = tuple(f',{key}="' for key in own.denied_keys)
        self.deltas = deltas.Deltas(source.deltas, self.rules)
        self.distributions = Distributions(is_collector=self.is_collector)
        self.converts = source.convertHistograms
        # A sample's value as exposed -> as written, or ``!REASON``.
        self.values: dict[str, str] = {}
        # By the label whose number is printed anew, or "": a block of labels -> the end of its lines.
        self.blocks: dict[str, dict[str, str | Rendered]] = {"": {}, "le": {}, "quantile": {}}
        self._block_chars = 0

    def learn(self, block: str, label: str) -> str | Rendered:
        """The end of the line for a block of labels, remembered."""
        labels = read_labels(block)
        if labels is not None and label and label in labels:
            bound = go_numbers.parse(labels[label])
            labels = None if bound is None else {**labels, label: go_numbers.shortest(bound)}
        elif labels is not None and label:
            labels = None
        end = ODD if labels is None else self.rules.render(labels)
        table = self.blocks[label]
        self._block_chars += len(block) + (len(end) if isinstance(end, str) else len(end.text))
        if self._block_chars > BLOCK_MEMO_CHARS_MAX:
            for each in self.blocks.values():
                each.clear()
            self._block_chars = 0
        table[block] = end
        return end

    def value(self, text: str) -> str:
        """A sample's value as it is written: "" if it is none, ``!REASON`` if it is not sent."""
        number = go_numbers.parse(text)
        if number is None:
            return ""
        if math.isnan(number):
            shown = "!nan"
        elif math.isinf(number) and not self.is_collector:
            shown = "!infinite"
        else:
            shown = go_numbers.plain(number)
        return remember(self.values, text, shown, length=len(text))
