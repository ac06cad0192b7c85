"""Uses a client that openapi-python-client made of the description, against a server that runs.

client.py URL TOKEN, with the package `rescind_client` on the path.
"""

import sys

from rescind_client.api.health import ready
from rescind_client.api.intake import self_report
from rescind_client.api.keys import (
    check_user_api_key,
    create_user_api_key,
    get_user_api_key,
    list_user_api_keys,
    rotate_user_api_key,
    update_user_api_key,
)
from rescind_client.api.operators import get_incident, list_incidents
from rescind_client.client import AuthenticatedClient, Client
from rescind_client.models.check_key import CheckKey
from rescind_client.models.create_user_key import CreateUserKey
from rescind_client.models.error_body import ErrorBody
from rescind_client.models.error_code import ErrorCode
from rescind_client.models.key_view_last_four import KeyViewLastFour
from rescind_client.models.last_four import LastFour
from rescind_client.models.patch_key import PatchKey
from rescind_client.models.rotate_key import RotateKey
from rescind_client.models.self_report_body import SelfReportBody

url, token = sys.argv[1:]
anonymous = Client(base_url=url)
client = AuthenticatedClient(base_url=url, token=token)


def key(description):
    return CreateUserKey(user_id="u-1", description=description, expires_at_millis=None)


def is_error(answer, status, code):
    assert answer.status_code == status, answer
    assert isinstance(answer.parsed, ErrorBody), answer
    assert answer.parsed.code is code, answer
    assert answer.headers["x-stack-known-error"] == code.value, answer
    return answer.parsed


assert ready.sync(client=anonymous).status == "ok"

# Create, and the same once more.
created = [create_user_api_key.sync(client=client, body=key(str(n))) for n in range(5)]
assert all(isinstance(one.value, str) for one in created), created
for replayed in (False, True):
    answer = create_user_api_key.sync_detailed(client=client, body=key("once"), idempotency_key="once")
    assert answer.headers.get("idempotency-replayed") == ("true" if replayed else None), answer
    assert isinstance(answer.parsed.value, LastFour if replayed else str), answer
answer = create_user_api_key.sync_detailed(client=client, body=key("other"), idempotency_key="once")
is_error(answer, 422, ErrorCode.IDEMPOTENCY_KEY_REUSED)

# List, in pages.
seen, cursor, pages = [], None, 0
while True:
    more = {} if cursor is None else {"cursor": cursor}
    page = list_user_api_keys.sync(client=client, user_id="u-1", limit=4, **more)
    assert page.is_paginated and all(isinstance(one, KeyViewLastFour) for one in page.items), page
    seen += [one.id for one in page.items]
    pages += 1
    cursor = page.pagination.next_cursor
    if cursor is None:
        break
assert pages == 2 and len(set(seen)) == 6, seen
assert {one.id for one in created} < set(seen)

# Check, rotate, revoke.
first = created[0]
checked = check_user_api_key.sync(client=client, body=CheckKey(api_key=first.value))
assert checked.id == first.id and checked.value.last_four == first.value[-4:], checked
rotated = rotate_user_api_key.sync(client=client, id=first.id, body=RotateKey(overlap_seconds=60))
assert rotated.user_id == "u-1" and rotated.id != first.id, rotated
revoked = update_user_api_key.sync(client=client, id=first.id, body=PatchKey(revoked=True))
assert isinstance(revoked.manually_revoked_at_millis, int), revoked
answer = check_user_api_key.sync_detailed(client=client, body=CheckKey(api_key=first.value))
is_error(answer, 401, ErrorCode.API_KEY_REVOKED)

# A leak, and its incident.
report = SelfReportBody(api_key=rotated.value, url="https://paste.example/1")
assert self_report.sync(client=anonymous, body=report).success
incidents = list_incidents.sync(client=client, limit=1)
incident = get_incident.sync(client=client, id=incidents.items[0].id)
assert incident.occurrences[0].url == "https://paste.example/1", incident
assert get_user_api_key.sync(client=client, id=rotated.id).manually_revoked_at_millis

# Errors, with their details.
answer = list_user_api_keys.sync_detailed(client=client, user_id="u-1", limit=201)
error = is_error(answer, 400, ErrorCode.SCHEMA_ERROR)
assert error.details["field"] == "limit", error
answer = list_user_api_keys.sync_detailed(client=AuthenticatedClient(base_url=url, token="x"), user_id="u-1")
assert is_error(answer, 401, ErrorCode.ACCESS_TOKEN_INVALID).details.to_dict() == {}
print("done")
