"""The answers as OpenAPI describes them. The code in `questions` makes plain objects; the tests hold both together."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Group = Annotated[dict[str, Any] | None, Field(description="values by field; null: all users", examples=[None])]
Time = Annotated[str, Field(description="ISO 8601, with the offset of the zone", examples=["2016-07-11T13:39:00Z"])]
Share = Annotated[float | None, Field(description="of the users of the cohort, 0 to 1; null of none", examples=[0.31])]


class Model(BaseModel):
    """Names a field of an answer `from`, which Python can't."""

    model_config = ConfigDict(populate_by_name=True, extra="forbid")


class Users(Model):
    """An estimate and its error."""

    unique_users: int = Field(description="the estimate", examples=[81216])
    relative_error: float = Field(description="one standard error, relative to unique_users", examples=[0.0162])
    low: int = Field(description="two standard errors below: 95 of 100 true numbers lie between low and high")
    high: int = Field(description="two standard errors above")


class RangeUsers(Users):
    """The users of a range."""

    from_: Time = Field(alias="from")
    to: Time
    events: int = Field(description="accepted events, exact", examples=[1024770])
    complete: bool = Field(description="all of the range is final; only corrections can change it")


class Named(RangeUsers):
    """The users of a period."""

    name: str = Field(description="the usual name of the period", examples=["2016-07-11", "2016-W28"])


class Versions(Model):
    """What the answer was given from."""

    minutes: int | None = Field(description="version of the Delta table of minutes")
    rollups: int | None = Field(description="version of the Delta table of rollups")
    state: int = Field(description="rises with each change, of records from Kafka too, while the service runs")


class Origin(Model):
    """What every answer says of itself."""

    timezone: str = Field(examples=["UTC", "Europe/Zurich"])
    final_until: str | None = Field(description="the end of the newest final window")
    versions: Versions


class OfGroup(Origin):
    """An answer about one group."""

    group: Group
    other: bool = Field(description="the group stands for all values that have none of their own")


class Corrections(Model):
    """Windows that have a later record than their first one, as far as minutes are in memory."""

    windows: int
    highest_revision: int


class RangeAnswer(RangeUsers, OfGroup):
    """`/v1/unique-users`."""

    corrections: Corrections
    united_from: dict[str, int] = Field(description="rows that were united, by period", examples=[{"hour": 10}])


class SeriesAnswer(OfGroup):
    """`/v1/series`."""

    period: str
    points: list[Named]


class Active(Users):
    """The users of the last n days."""

    events: int
    complete: bool


class Ratio(Model):
    """The share of the users of the longest window who were there in the shortest one."""

    value: float
    relative_error_at_most: float = Field(description="the sum of both standard errors")
    low: float
    high: float


class RollingPoint(Model):
    """A day and what ends with it."""

    day: str
    from_: Time = Field(alias="from")
    to: Time
    active: dict[str, Active] = Field(description="by number of days")
    stickiness: Ratio | None


class RollingAnswer(OfGroup):
    """`/v1/rolling`."""

    days: list[int]
    points: list[RollingPoint]


class Estimated(Model):
    """A number of users from two sketches together."""

    unique_users: int
    standard_error: int = Field(description="one standard error, in users")
    low: int = Field(description="two standard errors below")
    high: int = Field(description="two standard errors above")


class Side(RangeUsers):
    """One of two sets of users."""

    group: Group


class OverlapAnswer(OfGroup):
    """`/v1/overlap`."""

    a: Side
    b: Side
    either: Users
    both: Estimated
    only_a: Estimated
    only_b: Estimated
    sum_of_parts: int
    method: str = Field(examples=["hll_joint_likelihood", "coupons"])
    note: str
    complete: bool


class CameAgain(Estimated):
    """How many users of a cohort came again in a later period."""

    name: str
    share: Share
    low_share: Share
    high_share: Share
    complete: bool


class Cohort(Named):
    """The users of a period, and how many came again."""

    came_again: list[CameAgain]


class RetentionAnswer(OfGroup):
    """`/v1/retention`."""

    period: str
    note: str
    cohorts: list[Cohort]


class Part(RangeUsers):
    """A group of a breakdown."""

    group: Group
    other: bool


class Union(Users):
    """All groups together."""

    events: int


class Twice(Model):
    """Users who are in more than one group: the sum of the parts less their union."""

    unique_users: int
    standard_error_at_most: int


class BreakdownAnswer(Origin):
    """`/v1/breakdown`."""

    by: list[str]
    from_: Time = Field(alias="from")
    to: Time
    parts: list[Part]
    sum_of_parts: int
    union: Union
    counted_more_than_once: Twice
    total: RangeUsers
    complete: bool


class AccountingAnswer(Model):
    """`/v1/accounting`."""

    source: str | None = Field(description="the job's metrics; null: the service was not told where they are")
    problem: str | None = Field(description="why the job's metrics can't be read")
    job: dict[str, Any] | None = Field(description="where the events of the job's run went, its lag and its progress")
    events_in_tables: int = Field(description="accepted events in all windows")
    rejects_topic: str | None


class Reject(Model):
    """A rejected event."""

    reason: str | None
    topic: str | None
    partition: str | None
    offset: str | None
    arrival_time: str | None
    value: str
    shortened: bool = Field(description="the value is longer than what is shown")


class RejectsAnswer(Model):
    """`/v1/rejects`."""

    rejects: list[Reject]


class AboutAnswer(Model):
    """`/v1/about`."""

    version: str
    timezone: str = Field(description="the zone of the table of rollups; that of questions that name none")
    week_start: str
    first: str | None = Field(description="the start of the first day with data")
    last: str | None = Field(description="the end of the last window")
    timezones: list[str]
    breakdowns: list[list[str]]
    limits: dict[str, int]


class LiveMinute(RangeUsers):
    """A minute of `/v1/live`."""

    revision: int


class Problem(BaseModel):
    """Why there is no answer (RFC 9457, application/problem+json)."""

    type: str = "about:blank"
    title: str = Field(examples=["A parameter is wrong"])
    status: int = Field(examples=[400])
    detail: str = Field(examples=["from 'yesterday' is no time: give one such as 2016-07-11T13:39"])
