"""One short code for a language, however a corpus names it."""

from __future__ import annotations

_NAMES = """
af afr afrikaans; am amh amharic; ar ara arb arabic; as asm assamese; az aze azerbaijani; ba bak bashkir
be bel belarusian; bg bul bulgarian; bn ben bengali; bo bod tibetan; br bre breton; bs bos bosnian; ca cat catalan
cs ces czech; cy cym welsh; da dan danish; de deu german; dv div dhivehi; dz dzo dzongkha; ee ewe; el ell greek
en eng english; es spa spanish; et est estonian; eu eus basque; fa fas pes persian; fi fin finnish; fo fao faroese
fr fra french; fy fry frisian; ga gle irish; gl glg galician; gn grn guarani; gu guj gujarati; ha hau hausa
he heb iw hebrew; hi hin hindi; hr hrv croatian; hu hun hungarian; hy hye armenian; id ind indonesian; ig ibo igbo
is isl icelandic; it ita italian; ja jpn japanese; jv jav javanese; ka kat georgian; kk kaz kazakh; km khm khmer
kn kan kannada; ko kor korean; ks kas kashmiri; ku kur kmr kurdish; ky kir kyrgyz; lb ltz luxembourgish
ln lin lingala; lo lao; lt lit lithuanian; lv lav latvian; mg mlg malagasy; mi mri maori; mk mkd macedonian
ml mal malayalam; mn mon mongolian; mr mar marathi; ms msa zsm malay; mt mlt maltese; my mya myanmar burmese
ne nep npi nepali; nl nld dutch; nn nno nynorsk; no nor nob nb norwegian; oc oci occitan; or ori ory odia
pa pan punjabi panjabi; pl pol polish; ps pus pashto; pt por portuguese; ro ron romanian; ru rus russian
rw kin kinyarwanda; sa san sanskrit; sd snd sindhi; si sin sinhala sinhalese; sk slk slovak; sl slv slovenian
sn sna shona; so som somali; sq sqi albanian; sr srp serbian; su sun sundanese; sv swe swedish; sw swa swh swahili
ta tam tamil; te tel telugu; tg tgk tajik; th tha thai; tk tuk turkmen; tl tgl fil tagalog filipino; tr tur turkish
tt tat tatar; ug uig uyghur; uk ukr ukrainian; ur urd urdu; uz uzb uzbek; vi vie vietnamese; wo wol wolof
xh xho xhosa; yi yid yiddish; yo yor yoruba; yue cantonese; zh zho cmn chinese mandarin; zu zul zulu
"""
_CODES = {name: names.split()[0] for names in _NAMES.strip().replace("\n", ";").split(";") for name in names.split()}

UNSPACED = frozenset({"zh", "yue", "wuu", "ja", "th", "lo", "km", "my", "bo", "dz"})
"""Languages that are written without spaces between words: counts of words mean nothing there."""


def short_code(language: str) -> str:
    """The short code of a language tag, ISO 639-3 code or English name: ``en-GB``, ``eng``, ``English`` to ``en``.

    A name that is not known is returned in lower case, without its region.
    """
    primary = language.strip().lower().replace("_", "-").split("-")[0]
    return _CODES.get(primary, primary)
