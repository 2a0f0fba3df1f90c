"""Hands a message in by gRPC and reads it from the mailbox, knowing nothing of Posthorn but proto/.

    python3 -m venv /tmp/posthorn-example && . /tmp/posthorn-example/bin/activate
    pip install grpcio-tools
    mkdir -p /tmp/posthorn-example/gen
    python3 -m grpc_tools.protoc -I proto --python_out=/tmp/posthorn-example/gen \
        --grpc_python_out=/tmp/posthorn-example/gen $(find proto -name '*.proto')
    PYTHONPATH=/tmp/posthorn-example/gen python3 docs/examples/submit.py
"""

import uuid

import grpc
from posthorn.mailbox.v1 import mailbox_pb2, mailbox_pb2_grpc
from posthorn.submission.v1 import submission_pb2, submission_pb2_grpc

ALICE = "alice@example.test"

mailbox = mailbox_pb2_grpc.MailboxServiceStub(grpc.insecure_channel("127.0.0.1:7004"))
submission = submission_pb2_grpc.SubmissionServiceStub(grpc.insecure_channel("127.0.0.1:7001"))

# The changes of Alice's mailbox from now on; the first answer says that the watch stands.
changes = mailbox.Watch(mailbox_pb2.WatchRequest(mailbox=ALICE), timeout=30)
next(changes)

answer = submission.Submit(
    submission_pb2.SubmitRequest(
        # The same key and request again: the same answer, and no second message.
        idempotency_key=str(uuid.uuid4()),
        message=submission_pb2.StructuredMessage(
            **{"from": submission_pb2.Mailbox(address="bob@example.test", name="Bob")},
            to=[submission_pb2.Mailbox(address=ALICE)],
            subject="by gRPC",
            text="Hello, Alice.",
        ),
    ),
    timeout=10,
)
print("accepted as", answer.message_id)

for change in changes:
    if change.message.message_id == answer.message_id:
        print("in", change.message.folder, "as", change.message.uid)
        break

parts = mailbox.GetMessage(
    mailbox_pb2.GetMessageRequest(mailbox=ALICE, uid=change.message.uid, part=mailbox_pb2.PART_RAW), timeout=10
)
print(b"".join(part.chunk for part in parts).decode())
