"""Ordinary English words and invented ones, the stuff of the procedural corpus.

The English lists are a small general vocabulary (what any language model knows); everything that a document asks to be
copied is invented on the spot, so that copying, not remembering, is what there is to learn.
"""

from __future__ import annotations

import random
from functools import cache

from alpha_umi.toolworld.values import words as toolworld_words

NOUNS = tuple(
    """
    account address agent air airport alarm album amount animal answer apartment appointment area arrival article
    artist asset author balance bank battery beach bed benefit bike bill bird board boat body book booking box
    branch brand bread bridge budget building bus business cable cake calendar call camera camp capacity captain
    car card care cargo case cash category center chair chapter charge check city class client clinic clock club
    coach code coffee color comment committee company concert condition contact content contract copy corner cost
    counter country course court cover crew crop currency customer damage data date day deadline deal degree delay
    delivery department deposit depth design desk destination detail device diet direction director discount dish
    distance district doctor document door driver duration duty editor energy engine entry error estimate event
    exam exchange expense expert factory fare farm fee field file film fine fish flight floor flower food form
    freight friend fuel fund game garden gas gate gift goal gold grade grain grant group guard guest guide hall
    harbor head health height history hold holiday home hospital host hotel hour house idea image income index
    insurance invoice island issue item job journal journey judge key kind kitchen lab label lake land language
    law leader league length lesson letter level library license lift light limit line link list loan location
    lock loss machine mail manager map market mass match material meal measure meeting member memory menu message
    meter method metal mode model moment money month mood mountain movie museum music name network news night note
    notice number nurse object offer office officer oil opening operator option order origin owner package page
    paint pair paper parcel park part partner party pass passenger path patient payment people percent period
    permit person phone photo piece place plan plane plant plate platform player point policy pool port position
    post power practice premium price printer prize process product profile program project property provider
    purpose quality quantity quarter query question queue quote race radio rain range rank rate rating ratio
    reading reason receipt recipe record refund region renewal rent repair report request reservation resort
    response rest result return review reward ride ring risk river road role roof room route rule salary sale
    sample scale schedule school score screen season seat section sector seller seminar sensor series server
    service session shape share shelf shift ship shop shower side sign signal singer site size skill slot snow
    soil song source space speaker speed sport spot staff stage start state station status stay step stock stop
    storage store storm story street student studio study style subject sum supply support surface system table
    target task tax teacher team temperature term test text theater theme ticket time title tool topic total tour
    town track trade train transfer transport treatment tree trial trip truck type unit update user value van
    vehicle venue version video view village visit visitor voice volume wage wall warehouse watch water wave way
    weather week weight wheel wind window winner word work worker world year zone
    """.split()
)

VERBS = tuple(
    """
    add answer arrange ask assign book borrow buy calculate call cancel carry change charge check choose clean
    close collect compare compute confirm convert copy count create cut delete deliver describe display divide
    draw drop edit enter estimate fetch fill find finish fix follow forward gather get give hold insert inspect
    join keep launch lend list load locate look make mark match measure merge move name note offer open order pack
    pay pick place plan play post prepare print publish put quote rank rate read receive record register release
    remove rename renew rent repair replace report request reserve reset return review run save scan schedule
    search see sell send set share ship show sign sort start state stop store submit sum switch take tell test
    track transfer translate try turn update use verify view visit watch weigh withdraw write
    """.split()
)

ADJECTIVES = tuple(
    """
    active annual available average basic best big black blue bright broken busy calm central cheap clean clear
    cold common complete cool correct current daily dark deep different direct double dry early easy economy
    electric empty equal exact express extra fast final fine first fixed flat flexible free fresh full general
    gold good gray green half happy hard heavy high hot huge indoor large last late light local long loose low
    main major medium minor mixed modern monthly narrow near new next nice normal old open orange outdoor paid
    pending plain popular premium private public quick quiet rapid rare ready recent red regular remote rich right
    rough round safe second senior sharp short silver simple single slow small smooth soft solid special standard
    steep strong sunny sweet tall thick thin top total urgent usual valid warm weak weekly wet white whole wide
    wild yearly yellow young
    """.split()
)

LINKING = tuple(
    """
    a about above across after again all also an and another any are as at be because before below between both
    but by can cannot did do does done down each either else enough every failed few for from gave given gives had
    has have he her here his how i if in into is it its just known least less like many may me missing more most
    must my name named need needed needs neither no none nor not nothing now of off on once one only or other our
    out over own per please same says she should since so some something still such than that the their them then
    there these they this those through times to together too two under until up us use used user very wants was
    we were what when where which while who whose why will with without would yes yet you your three four five six
    timed asked shows exists exist fits fit tried instead both everything anything because works worked
    alternative down available unavailable authorised unauthorised timeout server next caller summarizer tell told
    want found gave result results created internal reply denied stopped cancelled could know several costs holds
    becomes issued booked paid gone lowest highest cheapest dearest longest shortest largest smallest fastest
    slowest oldest newest earliest latest nearest warmest coldest heaviest lightest strongest more rated closed
    opened sold sent moved changed added removed listed ready sorry please again first second third last finally
    ahead access user asked answer works fails try retry refused
    """.split()
)

THINGS = tuple(
    """
    alert apple ballot bay beds bin boats boss box bulb cab cafe cell chef child cities city clerk coin coins
    colors course courses cup days degrees departure depot dose drug dust exams farm fees firm firms flat flats
    flights flood forms frost garage gym hazard heat holder hotels hours houses inches items kilos kit lane leaves
    lessons liters lot meals menu meters miles minutes months motor nights orders parcels parking parts party pets
    pickup pickups pills pitch plants pole pollen prices pump recipes rides rooms roster salon seats sensors
    shares shoes shops sky songs spots squad stamps stars stocks stores suite teams tests tickets tons tours
    trains traveller trees trips tutor units vendor votes ward weeks wheels workers yards years yield zoo celsius
    fahrenheit kelvin usd eur gbp yen max min kg km cm gram pound liter cost worth
    """.split()
)

_ONSETS = tuple(
    """
    b c d f g h j k l m n p r s t v w x y z br ch cl cr dr fl gl gr kl kr pl pr sh sk sl sn sp st str th tr tw
    """.split()
)
_VOWELS = tuple(
    """
    a e i o u a e i o u ai au ea ei eo ia ie io oa ou ua ue
    """.split()
)
_CODAS = ["", "", "", "", *["n", "r", "s", "l", "m", "t", "d", "k", "x", "th", "nd", "rn", "st", "ng", "ck"]]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@cache
def reserved() -> frozenset[str]:
    """Words that belong to ToolWorld, in training or held out, and so never occur here."""
    return frozenset(word.lower() for pool in ("train", "held-out") for word in toolworld_words(pool))


def invented(rng: random.Random) -> str:
    """An invented lowercase word of 3 to 10 letters that is none of ToolWorld's."""
    while True:
        word = _syllables(rng)
        if word not in reserved():
            return word


def _syllables(rng: random.Random) -> str:
    """Mostly pronounceable, sometimes letters at random."""
    if rng.random() < 0.15:
        return "".join(rng.choices(_LETTERS, k=rng.randint(3, 8)))
    word = "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((1, 2, 2, 2, 3)))
    )
    if rng.random() < 0.3:
        word = rng.choice(_VOWELS)[0] + word
    return word[:10] if len(word) >= 3 else word + "ra"


def proper_name(rng: random.Random) -> str:
    """A capitalised invented name of one word or two."""
    return " ".join(invented(rng).capitalize() for _ in range(1 if rng.random() < 0.7 else 2))


def letters(rng: random.Random) -> str:
    """One to three capital letters."""
    return "".join(rng.choices(_LETTERS.upper(), k=rng.choice((1, 2, 2, 3))))


def identifier(rng: random.Random, start: str = "") -> str:
    """An identifier such as ``QR-4821`` or ``KTA-90``; ``start`` fixes its letters."""
    return f"{start or letters(rng)}-{rng.randrange(10 ** rng.randint(2, 6))}"
