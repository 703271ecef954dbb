"""The proxies before real servers: what they break, and what they leave alone."""
# ruff: noqa: PLR0917 - fixtures

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import psycopg
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from pipeline.settings import Settings
from tests.faults import wire
from tests.faults.pgproxy import Commit, PgProxy
from tests.faults.proxy import AwsProxy
from tests.faults.rules import (
    Again,
    BreakAfter,
    BreakBefore,
    Call,
    Cut,
    Hang,
    HoldBack,
    Late,
    Lose,
    Refuse,
    Slow,
    Twice,
)
from tests.support import wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

BODY = os.urandom(3_000_000)


@pytest.fixture
def proxy(aws: Settings) -> Iterator[AwsProxy]:
    assert aws.aws_endpoint_url is not None
    with AwsProxy(aws.aws_endpoint_url) as made:
        yield made


def client(proxy: AwsProxy, service: str) -> Any:
    """A client that tries once, so that what a rule does is seen."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=5, s3={"addressing_style": "path"})
    return boto3.client(service, endpoint_url=proxy.url, config=config)  # type: ignore[call-overload]


@pytest.fixture
def far_s3(proxy: AwsProxy) -> Iterator[S3Client]:
    made = client(proxy, "s3")
    yield made
    made.close()


@pytest.fixture
def far_sqs(proxy: AwsProxy) -> Iterator[SQSClient]:
    made = client(proxy, "sqs")
    yield made
    made.close()


@pytest.fixture
def queue(sqs: SQSClient, far_sqs: SQSClient) -> Iterator[str]:
    """The URL of a queue of its own, as a client behind the proxy knows it."""
    url = sqs.create_queue(QueueName=f"proxied-{uuid4()}")["QueueUrl"]
    yield far_sqs.get_queue_url(QueueName=url.rsplit("/", 1)[-1])["QueueUrl"]
    sqs.delete_queue(QueueUrl=url)


@pytest.fixture
def key(s3: S3Client, bucket: str) -> str:
    name = f"uploads/{uuid4()}/a b+ü.jpg"
    s3.put_object(Bucket=bucket, Key=name, Body=BODY)
    return name


def received(sqs: SQSClient, url: str, count: int = 10) -> list[str]:
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=count, AttributeNames=["All"])
    return [message["Body"] for message in found.get("Messages", [])]


def connections() -> int:
    """Clients that are being served."""
    return sum(thread.name == "connection" for thread in threading.enumerate())


def test_bodies_pass_unchanged_both_ways(
    far_s3: S3Client, s3: S3Client, bucket: str, key: str, tmp_path: Any
) -> None:
    assert far_s3.get_object(Bucket=bucket, Key=key)["Body"].read() == BODY
    file = tmp_path / "file"
    file.write_bytes(BODY)
    with file.open("rb") as body:  # announced by Expect: 100-continue
        far_s3.put_object(Bucket=bucket, Key=f"{key}.2", Body=body)
    assert s3.get_object(Bucket=bucket, Key=f"{key}.2")["Body"].read() == BODY
    assert far_s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(BODY)
    assert far_s3.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"] == 2
    far_s3.delete_object(Bucket=bucket, Key=key)


def test_chunks_of_unknown_number_pass(far_s3: S3Client, s3: S3Client, bucket: str, proxy: AwsProxy) -> None:
    key = f"uploads/{uuid4()}"
    url = far_s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": key})
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port)
    connection.request("PUT", url.removeprefix(proxy.url), body=iter([b"one", b"two"]), encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"onetwo"


def test_queue_urls_lead_to_the_proxy_and_every_request_is_told(
    proxy: AwsProxy, far_sqs: SQSClient, queue: str
) -> None:
    told: list[tuple[str, str, int | None]] = []
    proxy.hook = lambda call, moment: told.append((f"{moment} {call.action}", call.target, call.pid))
    assert queue.startswith(proxy.url)
    assert far_sqs.list_queues(QueueNamePrefix="proxied-")["QueueUrls"] == [queue]
    far_sqs.send_message(QueueUrl=queue, MessageBody=f"about {queue}")
    name, me = queue.rsplit("/", 1)[-1], os.getpid()
    assert told[-2:] == [("before SQS.SendMessage", name, me), ("after SQS.SendMessage", name, me)]
    assert received(far_sqs, queue) == [f"about {queue}"]


def test_topics_reach_queues(proxy: AwsProxy, far_sqs: SQSClient, queue: str) -> None:
    seen: list[str] = []
    proxy.hook = lambda call, _: seen.append(call.action)
    sns = client(proxy, "sns")
    topic = sns.create_topic(Name=f"proxied-{uuid4()}")["TopicArn"]
    arn = far_sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    sns.publish(TopicArn=topic, Message="news")
    assert received(far_sqs, queue) == ["news"]
    sns.delete_topic(TopicArn=topic)
    sns.close()
    assert "SNS.Publish" in seen


def test_a_rule_hits_what_it_names_so_many_times(
    proxy: AwsProxy, far_sqs: SQSClient, far_s3: S3Client, queue: str, bucket: str, key: str
) -> None:
    rule = proxy.rule(Refuse(503, "ServiceUnavailable"), "SQS.Send*", "proxied-*", count=1)
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        far_sqs.send_message(QueueUrl=queue, MessageBody="1")
    far_sqs.send_message(QueueUrl=queue, MessageBody="2")
    assert rule.hits == 1
    proxy.rule(Refuse(404, "NoSuchKey"), "S3.GetObject", f"{bucket}/{key}")
    with pytest.raises(far_s3.exceptions.NoSuchKey):
        far_s3.get_object(Bucket=bucket, Key=key)
    proxy.rule(Refuse(500, "InternalError"), "S3.PutObject")
    with pytest.raises(ClientError, match="InternalError"):
        far_s3.put_object(Bucket=bucket, Key=key, Body=BODY)
    proxy.clear()
    assert far_s3.get_object(Bucket=bucket, Key=key)["ContentLength"] == len(BODY)
    assert received(far_sqs, queue) == ["2"]


def test_chance_hits_some(proxy: AwsProxy, far_sqs: SQSClient, queue: str) -> None:
    rule = proxy.rule(Late(0), "SQS.*", probability=0.5)
    for _ in range(40):
        far_sqs.get_queue_attributes(QueueUrl=queue)
    assert 5 < rule.hits < 35


def test_a_broken_connection_is_before_or_after_the_deed(
    proxy: AwsProxy, far_sqs: SQSClient, sqs: SQSClient, queue: str
) -> None:
    proxy.rule(BreakBefore(), "SQS.SendMessage", count=1)
    for body in ("never sent", "sent unawares"):
        with pytest.raises(ConnectionClosedError):
            far_sqs.send_message(QueueUrl=queue, MessageBody=body)
        proxy.rule(BreakAfter(), "SQS.SendMessage", count=1)
    proxy.clear()
    assert received(far_sqs, queue) == ["sent unawares"]


def test_what_hangs_never_arrives_and_ends_with_its_client(
    proxy: AwsProxy, far_sqs: SQSClient, queue: str
) -> None:
    proxy.rule(Hang(600), "SQS.SendMessage")
    impatient = boto3.client(
        "sqs", endpoint_url=proxy.url, config=Config(read_timeout=1, retries={"total_max_attempts": 1})
    )
    with pytest.raises(ReadTimeoutError):
        impatient.send_message(QueueUrl=queue, MessageBody="1")
    impatient.close()
    wait_until(lambda: connections() <= 1, seconds=10)
    proxy.clear()
    assert received(far_sqs, queue) == []


@pytest.mark.parametrize(
    ("fault", "how"), [(Cut(0.5), "reset"), (Cut(0.5, reset=False), "IncompleteRead")], ids=["reset", "short"]
)
def test_a_body_that_ends_early_is_noticed(
    proxy: AwsProxy, far_s3: S3Client, bucket: str, key: str, fault: Cut, how: str
) -> None:
    proxy.rule(fault, "S3.GetObject", count=1)
    body = far_s3.get_object(Bucket=bucket, Key=key)["Body"]
    with pytest.raises(ResponseStreamingError, match=how):
        body.read()
    assert far_s3.get_object(Bucket=bucket, Key=key)["Body"].read() == BODY


def test_a_slow_body_is_whole(proxy: AwsProxy, far_s3: S3Client, bucket: str, key: str) -> None:
    proxy.rule(Slow(len(BODY) * 10), "S3.GetObject")
    assert far_s3.get_object(Bucket=bucket, Key=key)["Body"].read() == BODY


def test_what_is_sent_twice_is_there_twice(proxy: AwsProxy, far_sqs: SQSClient, queue: str) -> None:
    proxy.rule(Twice(), "SQS.SendMessage*")
    far_sqs.send_message(QueueUrl=queue, MessageBody="1")
    assert received(far_sqs, queue) == ["1", "1"]


def test_a_delivery_comes_again_with_its_receipt(proxy: AwsProxy, far_sqs: SQSClient, queue: str) -> None:
    proxy.rule(Again(), "SQS.ReceiveMessage")
    far_sqs.send_message(QueueUrl=queue, MessageBody="1")
    first, second = (far_sqs.receive_message(QueueUrl=queue)["Messages"][0] for _ in range(2))
    assert first == second
    far_sqs.delete_message(QueueUrl=queue, ReceiptHandle=second["ReceiptHandle"])
    assert received(far_sqs, queue) == []


def test_messages_held_back_are_overtaken_and_come(proxy: AwsProxy, far_sqs: SQSClient, queue: str) -> None:
    sent = [str(number) for number in range(10)]
    for body in sent:
        far_sqs.send_message(QueueUrl=queue, MessageBody=body)
    proxy.rule(HoldBack(seconds=1), "SQS.ReceiveMessage")
    first = received(far_sqs, queue)
    assert 0 < len(first) < len(sent)
    while len(first) < len(sent):  # the test's time limit ends it
        first += received(far_sqs, queue)
    assert sorted(first) == sent != first


def test_lost_messages_are_gone(proxy: AwsProxy, far_sqs: SQSClient, sqs: SQSClient, queue: str) -> None:
    far_sqs.send_message(QueueUrl=queue, MessageBody="1")
    proxy.rule(Lose(), "SQS.ReceiveMessage")
    assert received(far_sqs, queue) == []
    left = far_sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert left["ApproximateNumberOfMessages"] == left["ApproximateNumberOfMessagesNotVisible"] == "0"


# PostgreSQL


@pytest.fixture
def pg(database: str) -> Iterator[PgProxy]:
    with PgProxy(database) as made:
        yield made


def connect(pg: PgProxy) -> psycopg.Connection[Any]:
    return psycopg.connect(pg.url, connect_timeout=2)


def test_the_hook_is_told_of_each_commit_and_what_it_writes(pg: PgProxy) -> None:
    told: list[tuple[str, tuple[str, ...], int | None]] = []
    pg.hook = lambda commit, moment: told.append((moment, commit.writes, commit.pid))
    with connect(pg) as connection:
        connection.execute("CREATE TEMPORARY TABLE t (n int)")
        for number in range(8):  # more often than psycopg takes to prepare a statement
            connection.execute("INSERT INTO t VALUES (%s)", (number,))
            connection.commit()
        connection.execute("UPDATE t SET n = 1")
        connection.rollback()
    assert told[-2:] == [("before", ("INSERT t",), os.getpid()), ("after", ("INSERT t",), os.getpid())]
    assert len(told) == 16


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_client_killed_at_its_commit_has_committed_only_after_it(pg: PgProxy, moment: str) -> None:
    def hook(commit: Commit, now: str) -> None:
        if now == moment and "INSERT lost_or_found" in commit.writes:
            assert commit.pid is not None
            wire.kill(commit.pid)
            raise wire.Gone

    with connect(pg) as connection:
        connection.execute("DROP TABLE IF EXISTS lost_or_found")
        connection.execute("CREATE TABLE lost_or_found (n int)")
    pg.hook = hook
    code = "import psycopg, sys; c = psycopg.connect(sys.argv[1]); c.execute('INSERT INTO lost_or_found VALUES (1)'); c.commit(); print('told')"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code, pg.url], stdout=subprocess.PIPE, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (-9, b"")
    with connect(pg) as connection:
        found = connection.execute("SELECT count(*) FROM lost_or_found").fetchone()
        connection.execute("DROP TABLE lost_or_found")
    assert found == (int(moment == "after"),)


def test_a_large_answer_passes(pg: PgProxy) -> None:
    with connect(pg) as connection:
        found = connection.execute("SELECT repeat('x', 5000000)").fetchone()
    assert found == ("x" * 5_000_000,)


def test_refused_connections_are_refused_and_accepted_again(pg: PgProxy) -> None:
    with connect(pg) as connection:
        pg.refuse()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connect(pg)
    pg.listen_again()
    connect(pg).close()


def test_a_black_hole_ends_nothing_and_gives_back_what_it_took(pg: PgProxy) -> None:
    with connect(pg) as connection:
        pg.swallow()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            connect(pg)
        answers: list[Any] = []
        thread = threading.Thread(
            target=lambda: answers.append(connection.execute("SELECT 1").fetchone()), name="asking"
        )
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        pg.pass_on()
        thread.join(10)
        assert answers == [(1,)]


def test_a_cut_session_ends_and_a_new_one_begins(pg: PgProxy) -> None:
    with connect(pg) as connection:
        pg.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    connect(pg).close()


def test_a_call_knows_the_process_that_made_the_connection_not_its_children(proxy: AwsProxy) -> None:
    found: list[int | None] = []

    def hook(call: Call, moment: str) -> None:
        found.append(call.pid)

    proxy.hook = hook
    code = (
        "import boto3, os, sys, time\n"
        "c = boto3.client('sqs', endpoint_url=sys.argv[1])\n"
        "c.list_queues()\n"
        "pid = os.fork()\n"
        "if pid == 0: time.sleep(60)\n"
        "c.list_queues()\n"
        "os.kill(pid, 9)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, proxy.url]) as process:  # noqa: S603
        process.wait(30)
    assert found == [process.pid] * 4
