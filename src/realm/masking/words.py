"""The words that the name rules know: function words, titles, particles, heads of names."""


def word_set(text: str) -> frozenset[str]:
    """Return the words of `text`."""
    return frozenset(text.split())


STOP = word_set("""
a about above according across actually after afterwards again against ago ah albeit all almost
alone along already also although altogether always am amid among amongst an and another any
anyone anything anyway apart are around as aside at away back based be because been before behind
being below beneath beside besides between beyond both but by can cannot could dear despite did
do does during each early earlier either else elsewhere especially even eventually ever every
everyone everything except few finally first following for former formerly from further
furthermore generally given had half has have having he hello hence her here hereby hers herself
hey hi him himself his how however i if in including indeed initially inside instead into is it
its itself just largely last late later latter least less let like likewise listen look made mainly
many may maybe me meanwhile might mine more moreover most mostly much must my myself namely near
nearby nearly neither never nevertheless next no nobody none nonetheless nor normally not nothing
notwithstanding now nowadays of off often oh ok okay on once one ones only onto opposite or
originally other others otherwise our ours ourselves out outside over overall own past per
perhaps please plus prior probably quite rather recently regarding said same second see several
shall she should similar similarly simply since so some somebody someone something sometimes soon
sorry still subsequently such than thank thanks that the their theirs them themselves then there
thereafter thereby therefore these they third this those though through throughout thus till to
today together tomorrow too toward towards two typically ultimately under underneath unfortunately
unless unlike until up upon us usually various versus very via was we well were what whatever when
whenever where whereas whereby wherein wherever whether which whichever while whilst who whoever
whole whom whose why will with within without would yes yet you your yours yourself
hundreds thousands millions dozens tens
""")
"""Function words and openers of sentences: no name on their own."""

CALENDAR = word_set("""
january february march april may june july august september october november december
jan feb mar apr jun jul aug sep sept oct nov dec
monday tuesday wednesday thursday friday saturday sunday
mondays tuesdays wednesdays thursdays fridays saturdays sundays
mon tue tues wed thu thur thurs fri sat sun
""") - {"mar", "may", "march", "sat", "sun"}
"""Months and weekdays: no names on their own."""

TITLES = word_set("""
mr mrs ms miss mx dr prof professor sir madam madame dame lady lord rev reverend father fr
president president-elect vice-president vice deputy acting premier chancellor minister ministers
secretary governor governors lieutenant-governor mayor senator senators congressman congresswoman
representative councillor chairman chairwoman chairperson speaker ambassador
king queen emperor empress prince princess duke duchess earl count countess baron baroness
viscount marquess tsar tsarina czar sultan shah caliph emir sheikh pharaoh kaiser khan
pope cardinal archbishop bishop patriarch rabbi imam ayatollah pastor brother sister
general gen major maj colonel col captain capt lieutenant lt sergeant sgt corporal private
admiral adm commander cmdr commodore marshal brigadier field officer
judge justice attorney sheriff inspector detective chief sen gov rep hon honourable honorable
aunt uncle coach comrade doctor
prime leader director manager ceo editor
""")
"""Words before a person's name, and no name on their own."""

OFFICES = word_set("""
president king queen emperor empress mayor governor archbishop bishop pope minister ministers
secretary chancellor chairman director premier tsar sultan shah caliph head member members speaker
ambassador commander leader chief professor professors patriarch ceo manager editor dean citizens
fellow fellows mp mps candidate convenor commissioner commissioners presidents
kings queens governors
""")
"""Titles that a place follows: in "King of Norway" only Norway is the name."""

INNER_TITLES = word_set("""
president vice deputy attorney prime minister chancellor premier secretary governor mayor senator
congressman congresswoman representative ambassador professor colonel captain admiral lieutenant
sergeant emperor justice chairman director leader coach chief sir sheikh vizier grand ceo pm mp
member speaker archbishop
""")
"""Titles that end the name before them: U.S. | President | Woodrow Wilson."""

PRONOUN_VERBS = word_set("""
am have had do did can could would will went saw think thought know got just also never need want
wanted like love said
""")
"""Behind these words "I" is the pronoun, elsewhere behind a name the numeral."""

PARTIES = word_set("democrat republican democrats republicans")
"""Words that stand before a politician's name and are no part of it."""

FIRST_NAME_MONTHS = word_set("april june august")

PLACE_NOUNS = word_set("""
academy airport area assembly avenue award awards bay beach bowl bridge building canal castle
cathedral center centre chapel church city college corporation council county court cove creek cup
dam day district division dynamics electric empire estate falls field fort forest foundation
gallery garden gardens group hall harbor harbour hill hills hospital hotel inn institute
island islands land lake library mall market medal memorial monument motors mills mountain
mountains museum office palace park party peak pier place plaza point port prize province range
regiment republic ridge river road row school sea secretariat society sound square stadium staff
state station street studios territory theater theatre tower town trophy university valley village
war way wood states line house
""")
"""A chain that ends so is no person, so that its title stays ("Prince Edward Island")."""

INNER = word_set("""
de del della delle dei degli di da do dos das du des d' la le les lo van von vom der den ten ter
zu zur zum bin bint ibn ben al el y e und et af av upon sur am an im op aan het til na
""") - {"an", "am"}
"""Lower-case words inside a name."""

LEADING = word_set("de del della di da du van von vom bin ibn al el der ter ten zu")
"""Those that also begin one: "by van Gogh"."""

EPITHETS = word_set("""
great elder younger conqueror lionheart terrible wise pooh bold bald fair good tall short simple
pious impaler magnificent brave confessor unready hun baptist apostle evangelist divine fat fearless
kid ripper german child minor fowler blind lion stout barbarian builder vampire
hedgehog frog explorer
""")
"""What may follow `the` after a first name: Catherine the Great."""

BODY_NOUNS = word_set("""
academy administration agency association board bureau campaign center centers centre coalition
college commission committee conference congress convention council department faculty federation
foundation fund initiative institute institution ministry minister movement museum network office
organisation organization party programme project school secretary service front forum society
treaty union university alliance award prize medal department departments
""")
"""Heads of names that go on with for, on, and: Council on Foreign Relations."""

OF_NOUNS = word_set("""
kingdom gulf isle isles lord lords lady commonwealth basilica strait guild cape testament lodge
firth confederation vale senate sultanate archdiocese viceroyalty marquess earl duke duchess prince
princess countess count hall abbey cathedral
""")
"""Nouns seldom in lower case that `of` follows inside a name."""

TAIL_NOUNS = word_set("""
act administration agency association authority bank board bureau college commission committee
company corporation council department executive federation foundation fund institute league museum
network office organisation organization party program programme railroad railway research school
service society system union university
""")
"""Ends of names with an inner `and`: Food and Drug Administration."""

PAIRS = frozenset(
    tuple(pair.split())
    for pair in (
        "bosnia herzegovina", "trinidad tobago", "antigua barbuda", "kitts nevis", "tomé príncipe",
        "tome principe", "turks caicos", "newfoundland labrador", "simon garfunkel",
        "romeo juliet", "tyne wear", "brighton hove", "vincent grenadines",
        "hammersmith fulham", "dumfries galloway", "antony cleopatra", "tom jerry",
        "dungeons dragons", "rock roll", "nicholas alexandra", "wallis futuna", "perth kinross",
    )
)  # fmt: skip
"""Two words that `and` joins to one name."""

LABELS = word_set("""
part parts chapter chapters volume volumes book section article figure table appendix phase grade
level type class group stage page no. nos. vol. fig. pp.
""")
"""Words that number their thing: Part II, Class A."""

SUFFIXES = word_set("jr jr. sr sr. inc inc. ltd ltd. co co. corp corp. llc plc gmbh s.a. esq phd")
"""What may end a name."""

ACRONYMS = word_set("""
TV TVs DVD DVDs CD CDs PC PCs OK AM PM BC AD CE BCE CEO CFO PhD Ph.D. MA BA BS MBA MD ISBN ID IQ
UTC GMT EST PST AM FM HD FAQ Q&A P.S. No Vol pp MPs MP MEP MEPs KHz MHz GHz Mb
""")
"""Capitals that name nothing in particular, as they are written."""
