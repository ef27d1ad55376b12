"""Message classes of ``picker.proto``, built at import.

Code that protoc generates only runs with the versions of protobuf that it was generated for.  These
tables say the same; a test compares them with the file, which is what clients generate theirs from.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["PACKAGE", "SERVICE", "file_description", "message"]

PACKAGE = "eqcctpro.v1"
SERVICE = f"{PACKAGE}.Picker"

_FILE = "eqcctpro/serving/picker.proto"
_CODES = "network station location channel"
_OPTIONAL, _REPEATED = "optional", "repeated"

# Fields in the order of their numbers: type and name, and how often.
_MESSAGES: dict[str, list[tuple[str, str, str]]] = {
    "PickRequest": [
        ("bytes", "body", ""),
        ("string", "media_type", ""),
        ("string", "model", ""),
        ("double", "p_threshold", _OPTIONAL),
        ("double", "s_threshold", _OPTIONAL),
        ("double", "detection_threshold", _OPTIONAL),
        ("bool", "private", ""),
    ],
    "Pick": [
        *(("string", name, "") for name in f"{_CODES} phase time start_time end_time".split()),
        ("float", "probability", ""),
        *(("string", name, "") for name in ("model", "weights", "timechunk", "run_id")),
    ],
    "Station": [
        *(("string", name, "") for name in f"{_CODES} status reason error".split()),
        ("string", "notes", _REPEATED),
        ("int64", "windows", ""),
        ("int64", "samples", ""),
    ],
    "Curve": [
        *(("string", name, "") for name in f"{_CODES} start".split()),
        ("double", "sampling_rate", ""),
        ("string", "labels", _REPEATED),
        ("bytes", "values", ""),
    ],
    "PickReply": [
        ("string", "request_id", ""),
        ("string", "model", ""),
        ("Pick", "picks", _REPEATED),
        ("Pick", "detections", _REPEATED),
        ("Station", "stations", _REPEATED),
        ("string", "notes", _REPEATED),
        ("Curve", "curves", _REPEATED),
        ("string", "served_name", ""),
    ],
    "ModelsRequest": [],
    "Model": [
        ("string", "name", ""),
        ("string", "weights_sha256", ""),
        ("string", "phases", _REPEATED),
        ("string", "runtime", ""),
        ("string", "device", ""),
        ("string", "weights", ""),
        ("bool", "default", ""),
    ],
    "ModelsReply": [("Model", "models", _REPEATED)],
}

_METHODS = {
    "Pick": ("PickRequest", "PickReply"),
    "Annotate": ("PickRequest", "PickReply"),
    "Models": ("ModelsRequest", "ModelsReply"),
}


def file_description() -> Any:
    """``picker.proto`` as protobuf describes a file."""
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for number, (kind, field, often) in enumerate(fields, start=1):
            _add_field(described, number, kind, field, often)
    service = file.service.add(name="Picker")
    for name, (request, reply) in _METHODS.items():
        service.method.add(
            name=name, input_type=f".{PACKAGE}.{request}", output_type=f".{PACKAGE}.{reply}"
        )
    return file


def _add_field(described: Any, number: int, kind: str, name: str, often: str) -> None:
    kinds = descriptor_pb2.FieldDescriptorProto
    field = described.field.add(name=name, number=number)
    field.label = kinds.LABEL_REPEATED if often == _REPEATED else kinds.LABEL_OPTIONAL
    if kind in _MESSAGES:
        field.type, field.type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(kinds, f"TYPE_{kind.upper()}")
    if often == _OPTIONAL:
        field.proto3_optional = True
        field.oneof_index = len(described.oneof_decl)
        described.oneof_decl.add(name=f"_{name}")


# Servers tell of themselves from the default pool.
_POOL = descriptor_pool.Default()
_POOL.AddSerializedFile(file_description().SerializeToString())


def message(name: str) -> Any:
    """The class of a message."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
