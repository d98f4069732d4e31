"""Mutants of the contract that no test can tell from it, each with the reason."""

ROOM = "No sentence of the service comes near; the bound leaves room for longer ones within version 1."

SURVIVORS = {
    "/components/parameters/Priorities/schema/minItems -1": "A query has no way to say an empty array.",
    "/components/parameters/Priorities/schema/minItems dropped": "A query has no way to say an empty array.",
} | {
    f"/components/{place}/maxLength {step}": ROOM
    for place in (
        "schemas/Problem/properties/title",
        "schemas/Problem/properties/detail",
        "schemas/InputError/properties/detail",
        "responses/Unauthorized/headers/WWW-Authenticate/schema",
    )
    for step in ("-1", "+1")
}
