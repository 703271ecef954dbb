"""Parts 2 to 4, the network: what a proxy before SQS, S3 or PostgreSQL does to the calls of every part.

The harness itself uploads and asks past the proxies, so that the load is the same in every case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.faults.case import Arrangement, Run, Servers, case
from tests.faults.pgproxy import PgProxy
from tests.faults.proxy import AwsProxy
from tests.faults.rules import Again, Cut, Fault, Hang, HoldBack, Lose, Refuse, Rule, Slow, Twice

OUTAGE_S = 60.0  #: of SQS calls, as the issue has it
FAULT_S = 15.0
AWAY_S = 15.0  #: of PostgreSQL: longer than a lease
#: botocore tries three times by itself: so often even that fails.
OFTEN = 0.8
RECEIVE, SEND, DELETE = "SQS.ReceiveMessage", "SQS.SendMessage*", "SQS.DeleteMessage*"
GET, EVERYTHING = "S3.GetObject", "S3.*"
SLOW_RATE = 4000.0  #: bytes a second; a picture of the load has some 8,000
MISSING_TIMES = 2  #: GETs of each object that find nothing


@contextmanager
def before_aws(servers: Servers) -> Iterator[Arrangement]:
    """A proxy between every part and the AWS API."""
    with AwsProxy(servers.aws_url) as proxy:
        yield Arrangement(env={"*": {"DAILIES_AWS_ENDPOINT_URL": proxy.url}}, tools={"aws": proxy})


@contextmanager
def before_postgres(servers: Servers) -> Iterator[Arrangement]:
    """A proxy between every part and the database."""
    with PgProxy(servers.database_url) as proxy:
        yield Arrangement(env={"*": {"DAILIES_DATABASE_URL": proxy.url}}, tools={"pg": proxy})


def _break(run: Run, seconds: float, make: Callable[[AwsProxy], list[Rule]]) -> None:
    """Let the rules that ``make`` sets hold for ``seconds``; a fault that hits nothing proves nothing."""
    proxy: AwsProxy = run.tools["aws"]
    with run.fault():
        rules = make(proxy)
        run.wait(seconds)
        proxy.clear()
    run.note(f"{sum(rule.hits for rule in rules)} calls hit")
    assert all(rule.hits for rule in rules), [(rule.action, rule.hits) for rule in rules]


@case("sqs-twice", part="3", title="Every message sent twice, and each delivered twice", arrange=before_aws)
def every_message_twice(run: Run) -> None:
    _break(
        run,
        FAULT_S,
        lambda proxy: [proxy.rule(Twice(), SEND), proxy.rule(Again(), RECEIVE)],
    )


@case("sqs-reordered", part="3", title="Half of all deliveries held back up to 8 s", arrange=before_aws)
def deliveries_reordered(run: Run) -> None:
    _break(run, FAULT_S, lambda proxy: [proxy.rule(HoldBack(dice=run.dice), RECEIVE)])


def _outage(name: str, title: str, fault: Fault, action: str) -> None:
    @case(name, part="3", title=f"{title} for {OUTAGE_S:.0f} s", arrange=before_aws)
    def outage(run: Run) -> None:
        _break(run, OUTAGE_S, lambda proxy: [proxy.rule(fault, action)])


_outage("sqs-receive-fails", "Every receive fails", Refuse(), RECEIVE)
_outage("sqs-send-fails", "Every send fails", Refuse(), SEND)
_outage("sqs-delete-fails", "Every delete fails", Refuse(), DELETE)
_outage("sqs-receive-hangs", "Every receive hangs", Hang(OUTAGE_S), RECEIVE)
_outage("sqs-send-hangs", "Every send hangs", Hang(OUTAGE_S), SEND)
_outage("sqs-delete-hangs", "Every delete hangs", Hang(OUTAGE_S), DELETE)


@case("s3-500", part="4", title="S3 answers four of five calls with 500", arrange=before_aws)
def s3_has_errors(run: Run) -> None:
    fault = Refuse(500, "InternalError")
    _break(run, FAULT_S, lambda proxy: [proxy.rule(fault, EVERYTHING, probability=OFTEN)])


@case("s3-slow", part="4", title="S3 bodies at 4 kB a second", arrange=before_aws)
def s3_is_slow(run: Run) -> None:
    _break(run, FAULT_S, lambda proxy: [proxy.rule(Slow(SLOW_RATE), GET)])


@case("s3-reset", part="4", title="S3 resets connections in the middle of bodies", arrange=before_aws)
def s3_resets(run: Run) -> None:
    _break(run, FAULT_S, lambda proxy: [proxy.rule(Cut(), GET, probability=0.5)])


@case("s3-short", part="4", title="S3 bodies shorter than promised", arrange=before_aws)
def s3_is_short(run: Run) -> None:
    _break(run, FAULT_S, lambda proxy: [proxy.rule(Cut(reset=False), GET, probability=0.5)])


@case("s3-404", part="4", title="S3 answers 404 to the first reads after an event", arrange=before_aws)
def s3_is_behind(run: Run) -> None:
    storage, fault = run.stack.env["DAILIES_STORAGE_BUCKET"] + "/*", Refuse(404, "NoSuchKey")
    _break(run, FAULT_S, lambda proxy: [proxy.rule(fault, GET, storage, each=MISSING_TIMES)])


@case("s3-events-lost", part="4", title="S3 events lost on their way", arrange=before_aws)
def events_lost(run: Run) -> None:
    events = run.stack.env["DAILIES_QUEUE_PREFIX"] + "events"
    _break(run, FAULT_S, lambda proxy: [proxy.rule(Lose(), RECEIVE, events)])


@case("postgres-refuses", part="2", title="PostgreSQL refuses connections for 15 s", arrange=before_postgres)
def postgres_refuses(run: Run) -> None:
    proxy: PgProxy = run.tools["pg"]
    with run.fault():
        proxy.refuse()
        run.wait(AWAY_S)
        proxy.listen_again()


@case("postgres-silent", part="2", title="PostgreSQL silent for 15 s, then there", arrange=before_postgres)
def postgres_is_silent(run: Run) -> None:
    proxy: PgProxy = run.tools["pg"]
    with run.fault():
        proxy.swallow()
        run.wait(AWAY_S)
        proxy.pass_on()


@case("postgres-lost", part="2", title="PostgreSQL silent for 15 s, then reset", arrange=before_postgres)
def postgres_is_lost(run: Run) -> None:
    proxy: PgProxy = run.tools["pg"]
    with run.fault():
        proxy.swallow()
        run.wait(AWAY_S)
        proxy.cut()
        proxy.pass_on()
