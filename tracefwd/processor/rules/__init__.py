"""The Wavefront proxy's preprocessor rules, for spans, points and lines.

Contract: pure, and bounded whatever clients send.  ``read_rules`` reads a file and tells all its mistakes;
``RulesFile.for_port`` gives the rules of one port; ``RuleSet.apply`` changes a ``Subject`` and says whether it may go
on.  No value can make it raise, stall (RE2) or grow without bound: a rule that a value cannot bear is left out for that
value and counted.

Rules mean what they mean in the proxy (13.8), but for its defects.  Copied only with ``exact=True``:

* the list form of ``spanAllowTag`` forgets its ``if``;
* ``spanLimitLength`` with scope ``sourceName`` asks for the length of the **name** (a source that is too short to be
  cut fails the proxy's batch; here the rule is left out and counted as failed);
* ``limitLength`` of a point with ``drop`` forgets its ``match``;
* truncation splits a character of two UTF-16 units (it leaves ``?``).

Never copied:

* a ``$`` or backslash in a value that ``{{...}}`` fills in throws, or takes effect as a group: here it is a text;
* ``{{"quoted key"}}`` in a comparison is looked up with its quotes;
* a value's ``$`` or backslash in a comparison's ``{{...}}`` takes effect there, too: here it is a text;
* ``extractTag`` with source ``pointLine`` throws when it adds a tag;
* an expression built from a value (``regexMatch "{{tag}}"``): refused at start.

Kept although surprising, because files rely on it: ``global`` applies to ports named before it; ``and`` and ``or`` have
the same rank; several ``spanAllow`` rules must all be met; ``spanDropTag``'s key is an expression, other keys are not;
``iterations`` of replacements go on with the same filled-in text.

Files: ``file.py`` reads, ``catalogue.py`` lists the actions, ``actions.py extraction.py filters.py line_actions.py``
build them on ``matching.py`` and ``arguments.py``; ``predicate.py expression.py comparisons.py`` are the ``if``;
``dialect.py java_regex.py java_classes.py`` translate expressions, ``regex.py shortcuts.py keys.py`` run them;
``rule_set.py`` applies and counts.
"""

from tracefwd.processor.rules.file import RulesFile, read_rules
from tracefwd.processor.rules.rule import Change, PointRule, RuleCounts, SpanRule, Step
from tracefwd.processor.rules.rule_set import RuleSet
from tracefwd.processor.rules.subject import Subject

__all__ = [
    "Change",
    "PointRule",
    "RuleCounts",
    "RuleSet",
    "RulesFile",
    "SpanRule",
    "Step",
    "Subject",
    "read_rules",
]
