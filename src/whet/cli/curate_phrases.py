"""What `whet curate` says, in English and Korean: a part of the table in `whet.cli.phrases`."""

from __future__ import annotations

CURATE: dict[str, tuple[str, str]] = {
    "stage.reading documents": ("reading documents", "문서 읽는 중"),
    "stage.near duplicates": ("looking for near duplicates", "비슷한 문서 찾는 중"),
    "stage.documents": ("reading documents with the model", "모델로 문서 읽는 중"),
    "stage.writing documents": ("writing documents", "문서 쓰는 중"),
    "curate.documents": ("Documents", "문서"),
    "curate.count": ("count", "개수"),
    "curate.read": ("read", "읽음"),
    "curate.kept": ("kept", "남음"),
    "curate.exact duplicate": ("removed: exact duplicate", "제외: 완전히 같음"),
    "curate.language": ("removed: language", "제외: 다른 언어"),
    "curate.too short": ("removed: too short", "제외: 너무 짧음"),
    "curate.too long": ("removed: too long", "제외: 너무 긺"),
    "curate.leak": ("removed: holds text of evaluation", "제외: 평가 텍스트 포함"),
    "curate.near duplicate": ("removed: near duplicate", "제외: 거의 같음"),
    "curate.perplexity too low": ("removed: perplexity too low", "제외: 퍼플렉시티가 너무 낮음"),
    "curate.perplexity too high": ("removed: perplexity too high", "제외: 퍼플렉시티가 너무 높음"),
    "curate.quota": ("removed: over the quota", "제외: 할당 초과"),
    "curate.languages": ("Languages", "언어"),
    "curate.spoken": ("language", "언어"),
    "curate.share": ("share of bytes", "바이트 비율"),
    "curate.masked": ("Personal data, masked", "개인정보, 가림"),
    "curate.private": ("Personal data, not masked (--redact masks it)", "개인정보, 가리지 않음(--redact로 가림)"),
    "curate.EMAIL": ("e-mail addresses", "이메일 주소"),
    "curate.PHONE": ("phone numbers", "전화번호"),
    "curate.RESIDENT_NUMBER": ("resident registration numbers", "주민등록번호"),
    "curate.CARD": ("card numbers", "카드 번호"),
}
