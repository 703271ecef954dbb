"""An upload as API, bucket and Flower show it; Flower's tasks, states and control, there and in a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
from PIL import Image

from pipeline.workflows import StageName
from tests.e2e.stacks import Stack, until
from tests.images import YELLOW, corners, encoded

NAMES = {f"dailies.{stage}" for stage in StageName}
SIZES = {"primary": (1280, 720), "medium": (640, 360), "small": (320, 180)}
LIMIT_S = 60.0
CHROMIUM = shutil.which("chromium")
CHROMIUM_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=15000", "--dump-dom",
]  # fmt: skip


def flower(stack: Stack, path: str, method: str = "GET") -> Any:
    """Flower's answer, as an operator's script would ask for it."""
    headers = urllib3.make_headers(basic_auth=stack.env["DAILIES_FLOWER_BASIC_AUTH"])
    answer = urllib3.request(
        method, f"{stack.env['DAILIES_FLOWER_URL']}/api/{path}", headers=headers, timeout=30
    )
    assert answer.status == 200, answer.data
    return json.loads(answer.data)


def states(stack: Stack) -> dict[str, set[str]]:
    """The states that Flower shows, by the task's name."""
    found: dict[str, set[str]] = {}
    for task in flower(stack, "tasks?limit=1000").values():
        found.setdefault(task["name"], set()).add(task["state"])
    return found


def finished(stack: Stack, key: str) -> dict[str, Any] | None:
    """The newest job of the object at ``key``, once it is final."""
    items = stack.api.get("media-items", key_prefix=key)["data"]
    job = items[0]["latest_job"] if items else None
    return job if job and job["status"] in {"completed", "failed"} else None


def worker_name(stack: Stack) -> str:
    names = [name for name in flower(stack, "workers?refresh=1") if name.startswith("worker@")]
    assert len(names) == 1
    return names[0]


def test_flower_asks_for_the_password(stack: Stack) -> None:
    assert urllib3.request("GET", f"{stack.env['DAILIES_FLOWER_URL']}/api/workers").status == 401


def open_picture(url: str) -> Image.Image:
    """The picture behind a link of the API, decoded. The link is a redirect into the bucket."""
    answer = urllib3.request("GET", url, timeout=30)
    assert answer.status == 200, answer.data
    assert answer.retries
    assert [step.status for step in answer.retries.history] == [307]
    picture = Image.open(BytesIO(answer.data))
    picture.load()
    assert answer.headers["Content-Type"] == picture.get_format_mimetype()
    return picture


def test_upload_is_seen_in_the_api_the_bucket_and_flower(stack: Stack) -> None:
    key, s3 = "uploads/heron-at-dawn.jpg", stack.s3()
    s3.put_object(Bucket=stack.env["DAILIES_STORAGE_BUCKET"], Key=key, Body=encoded(corners((1920, 1080))))
    until(lambda: finished(stack, key), LIMIT_S)
    (summary,) = stack.api.get("media-items", key_prefix=key)["data"]
    item = stack.api.get(f"media-items/{summary['id']}")["data"]
    assert (item["latest_job"]["status"], item["width"], item["height"]) == ("completed", 1920, 1080)

    assert {told["variant"]: (told["width"], told["height"]) for told in item["thumbnails"]} == SIZES
    for told in item["thumbnails"]:
        picture = open_picture(told["url"])
        assert picture.size == SIZES[told["variant"]]
        assert picture.convert("RGB").getpixel((picture.width - 9, picture.height - 9)) == pytest.approx(
            YELLOW, abs=12
        )
        head = s3.head_object(Bucket=stack.env["DAILIES_THUMBNAIL_BUCKET"], Key=told["key"])
        assert (head["ContentType"], head["ContentLength"]) == (told["content_type"], told["bytes"])
        assert "immutable" in head["CacheControl"]

    hits = stack.api.get("search", q="heron dawn")["data"]["hits"]
    assert [hit["media_item_id"] for hit in hits] == [item["id"]]

    rows = stack.api.get(f"jobs/{item['latest_job']['id']}")["data"]["rows"]
    assert {f"dailies.{row['job_type']}" for row in rows} == NAMES
    ids = {row["id"]: "SUCCESS" for row in rows}

    def shown() -> dict[str, str]:
        tasks = flower(stack, "tasks?limit=1000")
        return {row_id: tasks[row_id]["state"] for row_id in ids if row_id in tasks}

    until(lambda: shown() == ids, LIMIT_S)


def test_every_stage_is_seen_to_succeed_and_a_broken_file_to_fail(stack: Stack) -> None:
    bucket = stack.env["DAILIES_STORAGE_BUCKET"]
    stack.s3().put_object(Bucket=bucket, Key="uploads/flower-good.jpg", Body=encoded(corners((640, 480))))
    stack.s3().put_object(Bucket=bucket, Key="uploads/flower-bad.jpg", Body=b"\0no type at all")
    until(lambda: finished(stack, "uploads/flower-good.jpg"), LIMIT_S)
    until(lambda: finished(stack, "uploads/flower-bad.jpg"), LIMIT_S)
    until(lambda: {name for name, seen in states(stack).items() if "SUCCESS" in seen} >= NAMES, LIMIT_S)
    until(lambda: "FAILURE" in states(stack)["dailies.ingest"], LIMIT_S)

    failed = flower(stack, "tasks?limit=1000&state=FAILURE")
    job = finished(stack, "uploads/flower-bad.jpg")
    assert job
    row = stack.api.get(f"jobs/{job['id']}")["data"]["rows"][0]
    # The operator finds the row by the id that Flower shows.
    assert "no type that Dailies reads" in failed[row["id"]]["exception"]


def send_event(stack: Stack, bucket: str, key: str) -> None:
    """Tell the listener of an object, whether it is there or not."""
    sqs = boto3.client(
        "sqs",
        endpoint_url=stack.env["DAILIES_AWS_ENDPOINT_URL"],
        aws_access_key_id=stack.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=stack.env["AWS_SECRET_ACCESS_KEY"],
        region_name=stack.env["AWS_DEFAULT_REGION"],
    )
    url = sqs.get_queue_url(QueueName=f"{stack.env['DAILIES_QUEUE_PREFIX']}events")["QueueUrl"]
    event = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "sequencer": "0A"}},
    }
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"Records": [event]}))


def test_a_stage_that_will_be_tried_again_is_seen_as_retry_and_then_succeeds(stack: Stack) -> None:
    bucket, key = "dailies-not-there-yet", "uploads/late.jpg"
    send_event(stack, bucket, key)
    until(lambda: "RETRY" in states(stack).get("dailies.ingest", set()), LIMIT_S)

    stack.s3().create_bucket(Bucket=bucket)
    stack.s3().put_object(Bucket=bucket, Key=key, Body=encoded(corners((320, 240))))
    until(lambda: (finished(stack, key) or {}).get("status") == "completed", LIMIT_S)


def test_a_revoked_task_is_a_cancelled_job(stack: Stack) -> None:
    key = "uploads/revoked.jpg"
    send_event(stack, "dailies-never-there", key)
    until(lambda: waiting(stack, key), LIMIT_S)
    job = stack.api.get("media-items", key_prefix=key)["data"][0]["latest_job"]
    row = stack.api.get(f"jobs/{job['id']}")["data"]["rows"][0]

    flower(stack, f"task/revoke/{row['id']}", "POST")

    until(lambda: stack.api.get(f"jobs/{job['id']}")["data"]["status"] == "cancelled", LIMIT_S)


def waiting(stack: Stack, key: str) -> bool:
    items = stack.api.get("media-items", key_prefix=key)["data"]
    return bool(items) and items[0]["latest_job"]["status"] == "processing"


def test_controls_reach_the_worker(stack: Stack) -> None:
    worker = worker_name(stack)

    def processes() -> int:
        return len(
            flower(stack, f"workers?refresh=1&workername={worker}")[worker]["stats"]["pool"]["processes"]
        )

    before = processes()
    assert "Growing" in flower(stack, f"worker/pool/grow/{worker}?n=1", "POST")["message"]
    until(lambda: processes() == before + 1, LIMIT_S)
    flower(stack, f"worker/pool/shrink/{worker}?n=1", "POST")
    until(lambda: processes() == before, LIMIT_S)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; .ci/run installs it")
def test_the_tasks_page_in_a_browser_names_the_six_stages(stack: Stack, tmp_path: Path) -> None:
    bucket = stack.env["DAILIES_STORAGE_BUCKET"]
    stack.s3().put_object(Bucket=bucket, Key="uploads/browser.jpg", Body=encoded(corners((800, 600))))
    until(lambda: finished(stack, "uploads/browser.jpg"), LIMIT_S)
    until(lambda: states(stack).keys() >= NAMES, LIMIT_S)
    page = stack.env["DAILIES_FLOWER_URL"].replace("://", f"://{stack.env['DAILIES_FLOWER_BASIC_AUTH']}@")
    shown = subprocess.run(  # noqa: S603
        [str(CHROMIUM), *CHROMIUM_FLAGS, f"--user-data-dir={tmp_path}", f"{page}/tasks"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert {name for name in NAMES if name in shown} == NAMES
