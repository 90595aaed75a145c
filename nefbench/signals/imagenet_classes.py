"""The ten super-classes of MicroImageNet: which of ImageNet-1k's classes belong to each.

Derived from WordNet 3.0, whose noun offsets are ImageNet's names (Debian's ``wordnet-base`` 3.0,
file ``data.noun``), and from the 1,000 names in their usual order (the file
``imagenet_synsets.txt`` of ``timm``): a class belongs to a super-class if the root synset is
reached from it over hypernyms.

The study names the super-classes in words that WordNet has several synsets for. Chosen:

    amphibian             n01627424  the animal, not the vehicle
    electronic equipment  n03278248  electronic equipment
    birds                 n01503061  bird
    primates              n02469914  primate
    dogs                  n02084071  dog, domestic dog
    cats                  n02121808  domestic cat, house cat
    houses                n03546340  housing, lodging, living accommodations
    fungus                n12992868  fungus
    trucks                n04490091  truck, motortruck
    cars                  n02958343  car, auto, automobile, not the railway car

Cats and houses follow the published loader, which takes cats as a sibling of dogs (domestic
animals; ``true cat`` would add cougar and lynx, ``feline`` the big cats) and houses as a child of
``structure`` (``house``, n03544360, has two classes: too few for 6,000 images; ``housing`` is the
next wider). Minivan is both a truck and a car; it counts as a car, the later of the two, as there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SuperClass:
    """One label of MicroImageNet.

    Attributes:
        name: In words.
        root: WordNet 3.0 synset that the classes hang from.
        wnids: Classes of ImageNet-1k, sorted.
        numbers: Their numbers in ImageNet-1k, 0 to 999, in the order of sorted names.
    """

    name: str
    root: str
    wnids: tuple[str, ...]
    numbers: tuple[int, ...]


def _super_class(name: str, root: str, text: str) -> SuperClass:
    pairs = [item.split(":") for item in text.split()]
    return SuperClass(
        name, root, tuple(wnid for _, wnid in pairs), tuple(int(number) for number, _ in pairs)
    )


_TABLE = {
    ("amphibian", "n01627424"): """
        25:n01629819 26:n01630670 27:n01631663 28:n01632458 29:n01632777 30:n01641577
        31:n01644373 32:n01644900
    """,
    ("electronic equipment", "n03278248"): """
        482:n02979186 485:n02988304 487:n02992529 508:n03085013 528:n03187595 605:n03584254
        613:n03602883 662:n03777754 664:n03782006 688:n03857828 707:n03902125 742:n04004767
        848:n04392985
    """,
    ("birds", "n01503061"): """
        7:n01514668 8:n01514859 9:n01518878 10:n01530575 11:n01531178 12:n01532829 13:n01534433
        14:n01537544 15:n01558993 16:n01560419 17:n01580077 18:n01582220 19:n01592084
        20:n01601694 21:n01608432 22:n01614925 23:n01616318 24:n01622779 80:n01795545
        81:n01796340 82:n01797886 83:n01798484 84:n01806143 85:n01806567 86:n01807496
        87:n01817953 88:n01818515 89:n01819313 90:n01820546 91:n01824575 92:n01828970
        93:n01829413 94:n01833805 95:n01843065 96:n01843383 97:n01847000 98:n01855032
        99:n01855672 100:n01860187 127:n02002556 128:n02002724 129:n02006656 130:n02007558
        131:n02009229 132:n02009912 133:n02011460 134:n02012849 135:n02013706 136:n02017213
        137:n02018207 138:n02018795 139:n02025239 140:n02027492 141:n02028035 142:n02033041
        143:n02037110 144:n02051845 145:n02056570 146:n02058221
    """,
    ("primates", "n02469914"): """
        365:n02480495 366:n02480855 367:n02481823 368:n02483362 369:n02483708 370:n02484975
        371:n02486261 372:n02486410 373:n02487347 374:n02488291 375:n02488702 376:n02489166
        377:n02490219 378:n02492035 379:n02492660 380:n02493509 381:n02493793 382:n02494079
        383:n02497673 384:n02500267
    """,
    ("dogs", "n02084071"): """
        151:n02085620 152:n02085782 153:n02085936 154:n02086079 155:n02086240 156:n02086646
        157:n02086910 158:n02087046 159:n02087394 160:n02088094 161:n02088238 162:n02088364
        163:n02088466 164:n02088632 165:n02089078 166:n02089867 167:n02089973 168:n02090379
        169:n02090622 170:n02090721 171:n02091032 172:n02091134 173:n02091244 174:n02091467
        175:n02091635 176:n02091831 177:n02092002 178:n02092339 179:n02093256 180:n02093428
        181:n02093647 182:n02093754 183:n02093859 184:n02093991 185:n02094114 186:n02094258
        187:n02094433 188:n02095314 189:n02095570 190:n02095889 191:n02096051 192:n02096177
        193:n02096294 194:n02096437 195:n02096585 196:n02097047 197:n02097130 198:n02097209
        199:n02097298 200:n02097474 201:n02097658 202:n02098105 203:n02098286 204:n02098413
        205:n02099267 206:n02099429 207:n02099601 208:n02099712 209:n02099849 210:n02100236
        211:n02100583 212:n02100735 213:n02100877 214:n02101006 215:n02101388 216:n02101556
        217:n02102040 218:n02102177 219:n02102318 220:n02102480 221:n02102973 222:n02104029
        223:n02104365 224:n02105056 225:n02105162 226:n02105251 227:n02105412 228:n02105505
        229:n02105641 230:n02105855 231:n02106030 232:n02106166 233:n02106382 234:n02106550
        235:n02106662 236:n02107142 237:n02107312 238:n02107574 239:n02107683 240:n02107908
        241:n02108000 242:n02108089 243:n02108422 244:n02108551 245:n02108915 246:n02109047
        247:n02109525 248:n02109961 249:n02110063 250:n02110185 251:n02110341 252:n02110627
        253:n02110806 254:n02110958 255:n02111129 256:n02111277 257:n02111500 258:n02111889
        259:n02112018 260:n02112137 261:n02112350 262:n02112706 263:n02113023 264:n02113186
        265:n02113624 266:n02113712 267:n02113799 268:n02113978
    """,
    ("cats", "n02121808"): """
        281:n02123045 282:n02123159 283:n02123394 284:n02123597 285:n02124075
    """,
    ("houses", "n03546340"): """
        500:n03042490 660:n03776460 663:n03781244 698:n03877845 915:n04613696
    """,
    ("fungus", "n12992868"): """
        991:n12985857 992:n12998815 993:n13037406 994:n13040303 995:n13044778 996:n13052670
        997:n13054560
    """,
    ("trucks", "n04490091"): """
        555:n03345487 569:n03417042 675:n03796401 717:n03930630 734:n03977966 864:n04461696
        867:n04467665
    """,
    ("cars", "n02958343"): """
        407:n02701002 436:n02814533 468:n02930766 511:n03100240 609:n03594945 627:n03670208
        656:n03770679 661:n03777568 751:n04037443 817:n04285008
    """,
}

SUPER_CLASSES = tuple(_super_class(name, root, text) for (name, root), text in _TABLE.items())
"""The super-classes; the label of an image is the position in this list."""
