"""What the people of the generator are called."""

from __future__ import annotations

from collections.abc import Callable

Draw = Callable[[], str]

HAN, HUI, UYGHUR, MIAO, DONG, YAO, BAI, TUJIA = "01", "03", "05", "06", "12", "13", "14", "15"
OTHER_NATIONS = (HUI, MIAO, DONG, YAO, BAI, TUJIA, "08", "09", "11")

# Where a nation is at home, by the start of the division code.
NATIONS_OF_PLACES = (
    ("4331", (TUJIA, MIAO)),
    ("4308", (TUJIA, BAI)),
    ("430529", (MIAO,)),
    ("431129", (YAO,)),
    ("431226", (MIAO,)),
    ("431227", (DONG,)),
    ("431228", (DONG,)),
    ("431229", (MIAO, DONG)),
    ("431230", (DONG,)),
)

# Common ones stand more than once.
SURNAMES = tuple(
    "李李李刘刘刘王王张张陈陈陈周周黄黄杨杨彭罗谭邓曾肖唐胡吴何曹欧蒋谢段夏龙贺"
    "廖易向田郭许袁尹戴文余朱邹石汤姜阳高傅萧侯毛孙雷熊徐赵林宋魏任覃滕粟禹"
)
COMPOUND_SURNAMES = ("欧阳", "司马", "上官", "诸葛", "皇甫", "尉迟", "令狐", "夏侯", "慕容", "公孙")
GIVEN_MALE = tuple(
    "伟强军勇杰涛明超建平志国文华海波辉鹏飞龙斌宇浩然俊哲轩子睿博铭泽楷晨阳德胜"
    "富贵光荣根生春林新民立群湘衡岳麓洪潇"
)
GIVEN_FEMALE = tuple(
    "芳娜敏静丽艳娟霞秀英玲桂兰红梅萍燕雪琳洁莉婷颖欣怡梓涵雨诗琪佳慧思雅梦瑶"
    "月娥翠香莲春花淑珍湘沅澧芷萱蕙"
)
# Rare ones, most of them beyond the basic plane: 4 bytes each in GB18030.
# Extension A: U+36C3; B: U+20BB7 U+212FE U+20164; C: U+2B5AE (2A700-2B73F); E: U+2CB4E U+2CE23;
# G: U+30EDD; U+4DAE is in the basic block and has 2 bytes.
RARE = ("𠮷", "𡋾", "𠅤", "𫖮", "𬭎", "𬸣", "𰻝", "㛃", "䶮")

UYGHUR_PARTS = (
    "阿依古丽", "买买提", "古丽娜尔", "艾尼瓦尔", "热依汗", "吐尔逊", "玉素甫", "帕提古丽",
    "库尔班", "阿不都拉", "努尔兰", "迪丽拜尔", "木拉提", "依明", "艾合买提", "塔依尔",
)  # fmt: skip
LONG_PARTS = (
    "阿卜杜热合曼吐尼亚孜", "麦麦提吐尔逊托合提", "阿卜杜力木提力甫", "阿卜杜外力阿卜杜热西提",
    "努尔麦麦提玉苏普江", "古丽巴哈尔穆罕默德",
)  # fmt: skip
