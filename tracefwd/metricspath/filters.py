"""Which points and tags are sent: the collector's seven lists, in its order.

1 ``metricAllowList``: the name must match one   2 ``metricDenyList``: and none of these
3 ``metricTagAllowList``: one of the listed tags must be there with a value that matches (or, over keys)
4 ``metricTagDenyList``: none of the listed tags may be there with a value that matches
5 per tag: ``tagGuaranteeList`` (exact keys) keeps, then ``tagInclude`` must and ``tagExclude`` must not match its key

Steps 3 and 4 see the tags as they are before step 5.  An absent or empty tag matches nothing.  A list that is absent or
empty filters nothing, but a key of ``metricTagAllowList`` without patterns matches nothing, so alone lets nothing pass.
A glob that cannot be meant raises ``ConfigError``: a filter never fails open.  Pure but for bounded memo tables.
"""

from collections.abc import Mapping

from tracefwd.errors import ConfigError
from tracefwd.metricspath.globs import GlobError, Globs, problems
from tracefwd.settings import FilterSettings

Tags = dict[str, str]

_LISTS = ("metricAllowList", "metricDenyList", "tagInclude", "tagExclude")
_TAG_LISTS = ("metricTagAllowList", "metricTagDenyList")


def check(settings: FilterSettings, where: str) -> list[str]:
    """One sentence for each pattern that cannot be used; ``where`` is the option that holds ``settings``."""
    found = [
        f"{where}.{name}: {problem}"
        for name in _LISTS
        for problem in problems(getattr(settings, name))
    ]
    for name in _TAG_LISTS:
        for key, patterns in getattr(settings, name).items():
            found += [f"{where}.{name}.{key}: {problem}" for problem in problems(patterns)]
    return found


class Filter:
    """Raises ``ConfigError``."""

    def __init__(self, settings: FilterSettings, where: str) -> None:
        bad = check(settings, where)
        if bad:
            raise ConfigError(bad)
        try:
            self._allow = _optional(settings.metricAllowList)
            self._deny = _optional(settings.metricDenyList)
            self._tag_allow = _by_key(settings.metricTagAllowList)
            self._tag_deny = _by_key(settings.metricTagDenyList)
            self._include = _optional(settings.tagInclude)
            self._exclude = _optional(settings.tagExclude)
        except GlobError as error:
            raise ConfigError([f"{where}: {error}"]) from error
        self._guaranteed = frozenset(settings.tagGuaranteeList)
        self.guaranteed = tuple(settings.tagGuaranteeList)
        self.takes_tags_off = self._include is not None or self._exclude is not None
        # Keys that any value denies.  Only without step 3, whose reason would come first.
        self.denied_keys = (
            ()
            if self._tag_allow
            else tuple(key for key, globs in self._tag_deny.items() if globs.any_text)
        )

    def judge_name(self, name: str) -> str:
        """ "" passes, else one of ``limits.SAMPLE_DROP_REASONS``."""
        if self._allow is not None and not self._allow.matches(name):
            return "name_not_allowed"
        if self._deny is not None and self._deny.matches(name):
            return "name_denied"
        return ""

    def judge_tags(self, tags: Mapping[str, str]) -> str:
        """ "" passes, else one of ``limits.SAMPLE_DROP_REASONS``."""
        if self._tag_allow and not _any_matches(self._tag_allow, tags):
            return "tag_not_allowed"
        if self._tag_deny and _any_matches(self._tag_deny, tags):
            return "tag_denied"
        return ""

    def keep(self, tags: Tags) -> Tags:
        """Step 5."""
        if not self.takes_tags_off:
            return tags
        return {key: value for key, value in tags.items() if self._keeps(key)}

    def _keeps(self, key: str) -> bool:
        if key in self._guaranteed:
            return True
        if self._include is not None and not self._include.matches(key):
            return False
        return self._exclude is None or not self._exclude.matches(key)


def _optional(patterns: list[str]) -> Globs | None:
    return Globs(patterns) if patterns else None


def _by_key(patterns: Mapping[str, list[str]]) -> dict[str, Globs]:
    return {key: Globs(texts) for key, texts in patterns.items()}


def _any_matches(lists: Mapping[str, Globs], tags: Mapping[str, str]) -> bool:
    for key, globs in lists.items():
        value = tags.get(key)
        if value and globs.matches(value):
            return True
    return False
