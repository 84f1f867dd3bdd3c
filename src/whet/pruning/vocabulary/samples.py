"""A few plain sentences in each of some languages: by them a person sees beforehand which text a smaller vocabulary
makes longer, also where no text in that language is at hand. All of it was written for this file."""

from __future__ import annotations

SAMPLES = {
    "ko": "오늘 아침에는 비가 조금 내렸지만 오후부터 맑아졌습니다. 저녁에 친구와 시장에서 과일을 사고, 내일 회의에서 "
    "쓸 자료를 함께 정리했습니다. 질문이 있으면 언제든지 편하게 물어보세요.",
    "en": "It rained a little this morning, but the sky cleared in the afternoon. In the evening I bought fruit at the "
    "market with a friend, and we put together the papers for tomorrow's meeting. If you have a question, just ask.",
    "ja": "今朝は少し雨が降りましたが、午後から晴れました。夕方、友達と市場で果物を買い、明日の会議で使う資料を一緒に"
    "まとめました。質問があれば、いつでも聞いてください。",
    "zh": "今天早上下了一点雨，下午就放晴了。傍晚我和朋友在市场买了水果，还一起整理了明天开会要用的材料。如果有问题，"
    "请随时提出来。",
    "de": "Heute Morgen hat es ein wenig geregnet, aber am Nachmittag wurde es schön. Am Abend habe ich mit einer "
    "Freundin auf dem Markt Obst gekauft, und wir haben die Unterlagen für die Sitzung geordnet.",
    "fr": "Il a plu un peu ce matin, mais le ciel s'est dégagé l'après-midi. Le soir, j'ai acheté des fruits au marché "
    "avec une amie, et nous avons préparé les documents pour la réunion de demain.",
    "es": "Esta mañana llovió un poco, pero por la tarde salió el sol. Por la noche compré fruta en el mercado con una "
    "amiga y preparamos los documentos para la reunión de mañana.",
    "ru": "Сегодня утром шёл небольшой дождь, но после обеда стало ясно. Вечером мы с подругой купили на рынке фрукты "
    "и вместе подготовили бумаги к завтрашнему совещанию.",
    "ar": "هطل المطر قليلا هذا الصباح ثم صفا الجو بعد الظهر. في المساء اشتريت فاكهة من السوق مع صديقتي ورتبنا معا "
    "أوراق اجتماع الغد.",
    "hi": "आज सुबह थोड़ी बारिश हुई, पर दोपहर के बाद आसमान साफ़ हो गया। शाम को मैंने दोस्त के साथ बाज़ार से फल ख़रीदे और कल "
    "की बैठक के काग़ज़ तैयार किए।",
    "th": "เช้านี้ฝนตกเล็กน้อย แต่ตอนบ่ายท้องฟ้าแจ่มใส ตอนเย็นฉันไปซื้อผลไม้ที่ตลาดกับเพื่อน แล้วเราช่วยกันเตรียมเอกสารสำหรับการประชุมพรุ่งนี้",
    "vi": "Sáng nay trời mưa một chút nhưng chiều đã tạnh. Buổi tối tôi cùng bạn ra chợ mua trái cây và chuẩn bị tài "
    "liệu cho cuộc họp ngày mai.",
    "code": "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n    return total / "
    "len(values) if values else None\n",
}
# Text that no vocabulary has whole: what is not a token is read as bytes, where a tokenizer can, and comes back.
UNSEEN = (
    "🦊🌧️👩🏽‍🚀 emoji, 가나다 mixed さくら with Ελληνικά",
    "ᚠᚢᚦ 𐍈 ꙮ ﷽ Ω≈ç√ 龘 뷁",
    "a\u200bb \t\n  c",
)
