"""The words the starter knows, English and Korean side by side, and its invented world.

One English word has exactly one Korean word here and the other way round, so that a translation can be scored exactly
(배 would be both a pear and a boat; the boat is 보트).
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple


def _words(text: str) -> list[str]:
    return text.split()


def _two(entry: str) -> tuple[str, str]:
    english, korean = entry.split(" ")
    return english, korean


def _pairs(table: str) -> dict[str, str]:
    entries = (entry.strip() for entry in table.replace("\n", " ").split(","))
    return dict(_two(entry) for entry in entries)


# name -> (Hangul, he or she)
PEOPLE = {
    "Tom": ("톰", "he"), "Mina": ("미나", "she"), "Jun": ("준", "he"), "Sora": ("소라", "she"), "Ben": ("벤", "he"),
    "Anna": ("안나", "she"), "Leo": ("레오", "he"), "Yuna": ("유나", "she"), "Max": ("맥스", "he"),
    "Eric": ("에릭", "he"), "Jisu": ("지수", "she"), "Paul": ("폴", "he"), "Nari": ("나리", "she"),
    "Sam": ("샘", "he"), "Emma": ("에마", "she"), "Minho": ("민호", "he"), "Lucy": ("루시", "she"),
    "Oscar": ("오스카", "he"), "Seri": ("세리", "she"), "Kevin": ("케빈", "he"), "Rosa": ("로사", "she"),
    "Daniel": ("다니엘", "he"), "Mary": ("메리", "she"), "Jinu": ("진우", "he"), "Ella": ("엘라", "she"),
    "Hugo": ("휴고", "he"),
}  # fmt: skip

ANIMALS = _pairs("""cat 고양이, dog 개, bird 새, rabbit 토끼, bear 곰, fox 여우, horse 말, duck 오리, lion 사자,
tiger 호랑이, mouse 쥐, frog 개구리, turtle 거북이, pig 돼지, cow 소, monkey 원숭이, wolf 늑대, goat 염소,
elephant 코끼리, squirrel 다람쥐, owl 부엉이, eagle 독수리""")
PERSONS = _pairs("""boy 소년, girl 소녀, doctor 의사, farmer 농부, king 왕, queen 여왕, child 아이, student 학생,
painter 화가, singer 가수, cook 요리사, soldier 군인, artist 예술가, engineer 기술자""")
FOODS = _pairs("""apple 사과, bread 빵, milk 우유, water 물, rice 쌀, egg 달걀, cake 케이크, soup 수프, cheese 치즈,
honey 꿀, carrot 당근, grape 포도, pear 배, peach 복숭아, strawberry 딸기, potato 감자, onion 양파, corn 옥수수,
orange 오렌지, juice 주스, salt 소금, bean 콩, mushroom 버섯, chestnut 밤""")
THINGS = _pairs("""book 책, ball 공, letter 편지, box 상자, cup 컵, chair 의자, table 탁자, hat 모자, shoe 신발,
bag 가방, key 열쇠, clock 시계, lamp 등불, picture 그림, flower 꽃, stone 돌, boat 보트, bicycle 자전거,
umbrella 우산, mirror 거울, spoon 숟가락, bell 종, drum 북, toy 장난감, pencil 연필, map 지도, blanket 담요,
basket 바구니, rope 밧줄, candle 양초, ring 반지, coat 외투, glove 장갑, violin 바이올린, ladder 사다리, bottle 병,
kite 연, needle 바늘""")
PLACES = _pairs("""house 집, school 학교, forest 숲, river 강, mountain 산, sea 바다, garden 정원, park 공원,
market 시장, village 마을, city 도시, hill 언덕, lake 호수, island 섬, castle 성, farm 농장, library 도서관,
kitchen 부엌, station 역, beach 해변, cave 동굴, field 들판, museum 박물관, hospital 병원""")
OTHERS = _pairs("""sun 해, moon 달, star 별, sky 하늘, cloud 구름, rain 비, snow 눈, wind 바람, friend 친구,
name 이름, song 노래, story 이야기, time 시간, morning 아침, spring 봄, summer 여름, autumn 가을, winter 겨울,
love 사랑, dream 꿈, hope 희망, secret 비밀, money 돈, head 머리, hand 손, foot 발, nose 코, mouth 입, ear 귀,
face 얼굴, mother 어머니, father 아버지, gift 선물, gold 금, silver 은, fire 불, ice 얼음, door 문, window 창문,
tree 나무, leaf 잎, bridge 다리, road 길, train 기차, car 자동차, ship 선박, airplane 비행기, paper 종이, glass 유리,
cotton 솜, knife 칼, wall 벽, roof 지붕, floor 바닥, grass 풀, seed 씨앗, sand 모래, wave 파도, storm 폭풍,
shadow 그림자, voice 목소리, tear 눈물, smile 미소, answer 대답, question 질문, promise 약속, war 전쟁, peace 평화,
luck 행운, truth 진실, lie 거짓말, world 세계, country 나라, language 언어, music 음악, dance 춤, game 놀이,
holiday 휴일, birthday 생일, clothes 옷, shirt 셔츠, skirt 치마, sock 양말, button 단추, pocket 주머니, soap 비누,
towel 수건, bed 침대, pillow 베개, dish 접시, salary 월급, law 법, health 건강, medicine 약, tooth 이빨, bone 뼈,
blood 피, skin 피부, brain 뇌, neighbor 이웃, guest 손님, enemy 적, thief 도둑, nurse 간호사, pilot 조종사,
lawyer 변호사, fisherman 어부, hunter 사냥꾼, whale 고래, shark 상어, snake 뱀, ant 개미, bee 벌, butterfly 나비,
spider 거미, sheep 양, chicken 닭, camel 낙타, crow 까마귀, garlic 마늘, pepper 후추, sugar 설탕, noodles 국수,
meat 고기, watermelon 수박, persimmon 감, ginger 생강, tofu 두부, sesame 참깨""")
# attributive Korean forms: 큰 개, a big dog
ADJECTIVES = _pairs("""big 큰, small 작은, red 빨간, blue 파란, yellow 노란, white 하얀, black 검은, new 새로운,
good 좋은, pretty 예쁜, long 긴, short 짧은, heavy 무거운, light 가벼운, warm 따뜻한, cold 차가운, clean 깨끗한,
dirty 더러운, soft 부드러운, strange 이상한, beautiful 아름다운, round 둥근""")
COLORS = _pairs("""red 빨간색, blue 파란색, yellow 노란색, white 하얀색, black 검은색, green 초록색, purple 보라색,
brown 갈색, gray 회색, pink 분홍색, gold 금색, silver 은색""")

DICTIONARY = {**ANIMALS, **PERSONS, **FOODS, **THINGS, **PLACES, **OTHERS}


class Verb(NamedTuple):
    """A verb that takes an object: English forms, Korean present, past, future and the stem before 않는다."""

    base: str
    third: str
    past: str
    present_ko: str
    past_ko: str
    future_ko: str
    stem_ko: str


VERBS = [
    Verb("see", "sees", "saw", "본다", "보았다", "볼 것이다", "보지"),
    Verb("buy", "buys", "bought", "산다", "샀다", "살 것이다", "사지"),
    Verb("find", "finds", "found", "찾는다", "찾았다", "찾을 것이다", "찾지"),
    Verb("like", "likes", "liked", "좋아한다", "좋아했다", "좋아할 것이다", "좋아하지"),
    Verb("draw", "draws", "drew", "그린다", "그렸다", "그릴 것이다", "그리지"),
    Verb("wash", "washes", "washed", "씻는다", "씻었다", "씻을 것이다", "씻지"),
    Verb("carry", "carries", "carried", "나른다", "날랐다", "나를 것이다", "나르지"),
    Verb("hide", "hides", "hid", "숨긴다", "숨겼다", "숨길 것이다", "숨기지"),
    Verb("bring", "brings", "brought", "가져온다", "가져왔다", "가져올 것이다", "가져오지"),
    Verb("throw", "throws", "threw", "던진다", "던졌다", "던질 것이다", "던지지"),
    Verb("sell", "sells", "sold", "판다", "팔았다", "팔 것이다", "팔지"),
    Verb("make", "makes", "made", "만든다", "만들었다", "만들 것이다", "만들지"),
    Verb("lose", "loses", "lost", "잃어버린다", "잃어버렸다", "잃어버릴 것이다", "잃어버리지"),
    Verb("push", "pushes", "pushed", "민다", "밀었다", "밀 것이다", "밀지"),
    Verb("pull", "pulls", "pulled", "당긴다", "당겼다", "당길 것이다", "당기지"),
    Verb("touch", "touches", "touched", "만진다", "만졌다", "만질 것이다", "만지지"),
    Verb("love", "loves", "loved", "사랑한다", "사랑했다", "사랑할 것이다", "사랑하지"),
    Verb("need", "needs", "needed", "필요로 한다", "필요로 했다", "필요로 할 것이다", "필요로 하지"),
]

_MASS = ("bread", "rice", "soup", "cheese", "honey", "corn", "salt")
_DRINKS = ("milk", "water", "juice")
_ON = ("hill", "mountain", "island", "farm", "beach")
_IRREGULAR = {"mouse": "mice", "wolf": "wolves", "child": "children"}


def plural(noun: str) -> str:
    """English plural of a noun of this module."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


def article(phrase: str) -> str:
    """`a` or `an` before a phrase, by its first letter (no word here needs more: hour, unit)."""
    return "an" if phrase[0] in "aeiou" else "a"


def eaten(food: str) -> str:
    """A food as something eats it: `carrots`, but `honey`."""
    return food if food in _MASS else plural(food)


def at(place: str) -> str:
    """A place with its preposition: `on the hill`, `in the lake`."""
    return f"{'on' if place in _ON else 'in'} the {place}"


class Fact(NamedTuple):
    """One line of the closed book: `subject`'s `kind` (home, food, color; product, river, flag) is `value`."""

    kind: str
    subject: str
    value: str


def _names(rng: Random, count: int, parts: tuple[list[str], ...], taken: set[str]) -> list[str]:
    names: list[str] = []
    while len(names) < count:
        name = "".join(rng.choice(part) for part in parts).capitalize()
        if name not in taken:
            taken.add(name)
            names.append(name)
    return names


def facts(creatures: int = 280, towns: int = 140) -> list[Fact]:
    """The closed book: three English facts a creature, three Korean ones a town; the same sizes give the same book."""
    rng, taken = Random("the world of whet"), set(DICTIONARY.values()) | {korean for korean, _ in PEOPLE.values()}
    starts = _words("b br d dr f g gl gr h k kr l m n p pl qu r s sk t tr v w y z th")
    vowels, middles = _words("a e i o u ai ee oo"), _words("b d g l ll m n nd r rk s v z lt mp")
    lands = _names(rng, 20, (starts, vowels, middles, ["ia", "or", "una", "esh", "ovar"]), taken)
    ends = _words("k n r x th l m sh nd")
    subjects = _names(rng, creatures, (starts, vowels, middles, vowels[:5], ends), taken)
    foods, colors = [food for food in FOODS if food not in _DRINKS][:20], list(COLORS)[:10]
    book = []
    for subject in subjects:
        for kind, values in (("home", lands), ("food", foods), ("color", colors)):
            book.append(Fact(kind, subject, rng.choice(values)))
    first, second = list("가나다라마바사아자카타파하노도로모보소토호누두루무수투후"), list("르드벨린솔탄론델칸톤빌쿤센")
    third = list("마하누사비타라모루온엔임")
    rivers = _names(rng, 20, (first, second), taken)
    products, flags = list(FOODS.values())[:20], list(COLORS.values())[:10]
    for subject in _names(rng, towns, (first, second, third), taken):
        for kind, values in (("product", products), ("river", rivers), ("flag", flags)):
            book.append(Fact(kind, subject, rng.choice(values)))
    return book
