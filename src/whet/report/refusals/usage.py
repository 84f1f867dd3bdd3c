"""Errors of what was typed on the command line or written in a document in Korean, as typer and pydantic say them."""

from __future__ import annotations

USAGE: dict[str, str] = {
    # typed commands
    "No such command {name}.": "명령 {name}이(가) 없습니다.",
    "No such command {name}. Did you mean {names}?": "명령 {name}이(가) 없습니다. 혹시 {names}입니까?",
    "No such option: {name}.": "옵션 {name}이(가) 없습니다.",
    "Missing command.": "명령이 없습니다.",
    "Missing argument {name}.": "{name}이(가) 없습니다.",
    "Missing option {name}.": "옵션 {name}이(가) 없습니다.",
    "Got unexpected extra argument(s) ({names}).": "인자가 남습니다: {names}.",
    "Option {name} requires an argument.": "옵션 {name}에 값이 없습니다.",
    "Option {name} requires {count} arguments.": "옵션 {name}에는 값이 {count}개 필요합니다.",
    "Option {name} does not take a value.": "옵션 {name}은(는) 값을 받지 않습니다.",
    "Invalid value for {name}: Input should be {what}.": "{name}의 값: {what}.",
    "Invalid value for {name}: {what}.": "{name}의 값이 옳지 않습니다: {what}.",
    "Invalid value for {name}: Value error, {value} is not one of {known}.": (
        "{name}: {value}은(는) {known} 가운데 하나가 아닙니다."
    ),
    # documents
    "{source}: the key {path} is not known.{near} Keys here: {known}.": (
        "{source}: {path}은(는) 모르는 키입니다.{near} 쓸 수 있는 키: {known}."
    ),
    "{source}: the key {path} is not known.{near} Keys here: {known}. ({count} more like this.)": (
        "{source}: {path}은(는) 모르는 키입니다.{near} 쓸 수 있는 키: {known}. (이런 것이 {count}개 더 있습니다.)"
    ),
    "{source}: the key {path} is missing.": "{source}: 키 {path}이(가) 없습니다.",
    "{source}: the key {path} is missing. ({count} more like this.)": (
        "{source}: 키 {path}이(가) 없습니다. (이런 것이 {count}개 더 있습니다.)"
    ),
    "{source}: {path} is {value}: input should be {what}.": "{source}: {path}이(가) {value}입니다. {what}.",
    "{source}: {path} is {value}: input should be {what}. ({count} more like this.)": (
        "{source}: {path}이(가) {value}입니다. {what}. (이런 것이 {count}개 더 있습니다.)"
    ),
    "{source}: {path} is {value}: list should have at least {least} item after validation, not {count}.": (
        "{source}: {path}이(가) {value}입니다. 항목이 {count}개가 아니라 {least}개 이상이어야 합니다."
    ),
    "{source}: {path} is {value}: keys should be strings.": "{source}: {path}의 키 {value}은(는) 문자열이어야 합니다.",
    "{source}: {path} is {value}: keys should be strings. ({count} more like this.)": (
        "{source}: {path}의 키 {value}은(는) 문자열이어야 합니다. (이런 것이 {count}개 더 있습니다.)"
    ),
    "a valid string": "글이어야 합니다",
    "a valid integer": "정수여야 합니다",
    "a valid integer, unable to parse string as an integer": "정수여야 합니다",
    "a valid integer, got a number with a fractional part": "소수점 아래가 없는 정수여야 합니다",
    "a valid number": "수여야 합니다",
    "a valid number, unable to parse string as a number": "수여야 합니다",
    "a finite number": "유한한 수여야 합니다",
    "a valid boolean": "true나 false여야 합니다",
    "a valid boolean, unable to interpret input": "true나 false여야 합니다",
    "a valid list": "목록이어야 합니다",
    "a valid dictionary": "키와 값의 표여야 합니다",
    "a valid dictionary or instance of {name}": "키와 값의 표여야 합니다({name})",
    "greater than or equal to {least}": "{least} 이상이어야 합니다",
    "less than or equal to {most}": "{most} 이하여야 합니다",
    "'{first}' or '{last}'": "'{first}'이나 '{last}'이어야 합니다",
}
