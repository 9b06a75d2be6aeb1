"""What the codes mean, in words, and what to do next: for operators, Chinese first."""

from __future__ import annotations

from typing import NamedTuple

from domain.codes import Code


class Words(NamedTuple):
    """`chinese` and `english` say what happened; `next_step` what the person does now."""

    chinese: str
    english: str
    next_step: str


WORDS: dict[Code, Words] = {
    Code.OK: Words("正常", "in order", ""),
    Code.MALFORMED: Words("格式无法识别", "cannot be read", "check the sender's format"),
    Code.TRAILER_MISSING: Words(
        "缺少尾记录", "the trailer is missing", "send the whole file again"
    ),
    Code.COUNT_DIFFERS: Words("记录数不符", "the count differs", "send the whole file again"),
    Code.DIGEST_DIFFERS: Words("摘要不符", "the digest differs", "send the whole file again"),
    Code.FILE_TOO_LARGE: Words(
        "文件过大", "too many records, or too long", "拆分后重报 split the file"
    ),
    Code.ID_REUSED: Words(
        "编号已用于其他内容", "this id was used for other content", "use a new id"
    ),
    Code.BATCH_TAKEN: Words("该批次已接收", "this batch was taken before", "send a correction"),
    Code.BATCH_CLOSED: Words("该批次已回盘", "the batch's return was written", "use a new batch"),
    Code.REVISION_ORDER: Words(
        "回盘修订次序不符",
        "not the next revision of this batch's return",
        "send the revisions in their order",
    ),
    Code.LOT_UNKNOWN: Words("无此抽检批", "no such inspection lot", "centre status 查批号"),
    Code.LOT_NOT_REFUSED: Words(
        "该抽检批未被拒收", "the inspection lot is not refused", "nothing is to be decided"
    ),
    Code.RETURN_FINAL: Words(
        "已最终回盘", "the return has the last line of this order", "use a new order"
    ),
    Code.NOTHING_TAKEN: Words("没有一条可用记录", "no record can be taken", "correct the records"),
    Code.DELIVERY_UNKNOWN: Words("无此送货单", "no such delivery", "wait for the delivery note"),
    Code.DELIVERY_SIGNED: Words("该送货已签收", "signed for before, other counts", "count again"),
    Code.CARTON_NOT_COUNTED: Words("有箱未清点", "a carton has no count", "count every carton"),
    Code.CARTON_UNKNOWN: Words(
        "箱号不在送货单", "the carton is not on the note", "check the label"
    ),
    Code.PACKAGE_UNKNOWN: Words("无此包", "no such package", "核对包号 check the package's label"),
    Code.PERSONAL_DATA_OVERDUE: Words(
        "个人信息已到期而批次未结",
        "personal data are over, and their batch is open",
        "办结该批次 bring the batch to its end: centre batch BATCH",
    ),
    Code.BACKUP_UNKNOWN: Words("无此备份", "no such backup", "查看登记 centre backup list"),
    Code.PACKAGE_DIFFERS: Words(
        "包内卡片与分拣清单不符",
        "the package is not what its list says",
        "找齐后重新扫描整包 put it right, then scan the whole package again",
    ),
    Code.SCAN_MISSING: Words(
        "清单上有而未扫到", "on the list, not scanned", "找到该卡 find the card"
    ),
    Code.SCAN_FOREIGN: Words(
        "不属于本包", "not a card of this package", "取出该卡 take the card out"
    ),
    Code.SCAN_TWICE: Words("重复扫描", "scanned twice", "每张只扫一次 scan each card once"),
    Code.PACKAGE_UNSCANNED: Words(
        "包待扫描", "packages wait for their scan", "逐包扫描 centre scan PACKAGE"
    ),
    Code.COUNT_TOO_LOW: Words(
        "少于已见卡数", "fewer than the cards that were seen", "count on all stacks and in readers"
    ),
    Code.FIELD_MISSING: Words("缺少字段", "a field is missing", "send the record again, complete"),
    Code.BAD_FORMAT: Words("字段格式错误", "a field has a wrong format", "correct the field"),
    Code.BAD_CODING: Words(
        "字符不是 GB18030 编码", "bytes are not GB 18030", "correct the field's coding"
    ),
    Code.BAD_CHECK_DIGIT: Words("校验位错误", "the check digit is wrong", "correct the number"),
    Code.UNKNOWN_BANK: Words(
        "银行代码未登记", "the bank is not registered", "correct the bank code"
    ),
    Code.UNKNOWN_BRANCH: Words("网点未登记", "the branch is not registered", "correct the branch"),
    Code.REPEATED_NUMBER: Words(
        "号码重复", "the number stands twice", "correct or drop the record"
    ),
    Code.NOTHING_TO_CORRECT: Words(
        "没有可更正的记录", "no refused record to correct", "check file, order and card"
    ),
    Code.ORDER_UNKNOWN: Words("无此订单", "no such order", "check the order id"),
    Code.ALREADY_PACKED: Words(
        "已装包，不能撤销或暂停", "packed before this came", "collect the card at the branch"
    ),
    Code.NOT_ON_HOLD: Words("订单未被暂停", "the order is not on hold", "none"),
    Code.CANCELLED: Words(
        "订单已撤销", "card management cancelled the order", "keep the card apart"
    ),
    Code.ON_HOLD: Words("订单已暂停", "card management holds the order", "wait for its release"),
    Code.CHIP_SILENT: Words("芯片无应答", "the chip does not answer", "remake the card"),
    Code.CHIP_UNREADABLE: Words("芯片无法读取", "the chip cannot be read", "remake the card"),
    Code.NOT_IN_RETURN: Words("识别码不在回盘", "not in the factory return", "ask the factory"),
    Code.OVER_COUNT: Words(
        "超出清点数", "more cards than were counted", "centre recount CARTON=COUNT"
    ),
    Code.WRONG_KIND: Words("卡种与箱不符", "the kind differs from the carton's", "ask the factory"),
    Code.OTHER_BATCH: Words("属于其他批次", "its order is of another batch", "ask the factory"),
    Code.FACE_DIFFERS: Words(
        "卡面与芯片不属于同一张卡", "face and chip belong to two cards", "report to the factory"
    ),
    Code.FORMAL_KEYS_FOREIGN: Words(
        "卡内已有非本中心释放的正式密钥",
        "formal keys that this centre never released",
        "report to the key custodians",
    ),
    Code.APPLICATION_BLOCKED: Words(
        "应用已锁定",
        "an application is blocked",
        "交发卡方解锁或作废 its issuer unblocks it, or remake",
    ),
    Code.APPLICATION_MISSING: Words(
        "卡内无此应用", "the chip has no such application", "check that it is a card of this kind"
    ),
    Code.KEYS_UNFINISHED: Words(
        "密钥更换未完成",
        "key replacement was interrupted",
        "放回送卡机，按卡内版本继续 feed it again: it goes on from its versions",
    ),
    Code.KEYS_MISSING: Words("卡内无密钥", "the chip has no keys", "退回卡厂 back to the factory"),
    Code.PIN_LOCKED: Words(
        "PIN 已锁定",
        "the PIN is locked",
        "由服务网点解锁或重装 a service window unblocks or reloads it",
    ),
    Code.KEY_BLOCKED: Words("密钥已锁死", "a key is blocked: no tries left", "remake the card"),
    Code.KEYS_MIXED: Words("密钥版本混杂", "an unknown set of key versions", "remake the card"),
    Code.KEY_COUNTER_LOW: Words("密钥剩余次数过少", "too few tries left", "remake the card"),
    Code.AUTHENTICATION_REFUSED: Words("认证失败", "authentication refused", "check the key block"),
    Code.KEY_WRITE_REFUSED: Words("密钥写入失败", "the key was not written", "remake the card"),
    Code.KEY_NOT_PROVEN: Words("正式密钥验证失败", "a formal key is not proven", "remake the card"),
    Code.CARD_CRYPTOGRAM: Words(
        "卡片密文验证失败", "the chip does not hold the bank's keys", "ask the bank for its KMC"
    ),
    Code.RESPONSE_MAC: Words(
        "卡片应答校验失败", "an answer was not made by the chip", "feed the card again"
    ),
    Code.CARD_CHECK_VALUE: Words(
        "卡片返回的密钥校验值不符", "the chip stored another key", "remake the card"
    ),
    Code.DATA_DIFFERS: Words("卡内数据与订单不符", "data differ from the order", "remake the card"),
    Code.LOT_REFUSED: Words(
        "抽检批不合格",
        "its inspection lot was refused",
        "单独存放，请示班长；本版本不能放行"
        " keep the lot apart, ask the shift leader; this version cannot release it",
    ),
    Code.IN_DOUBT: Words(
        "可能已写密钥，卡片未再出现",
        "keys may have been written, and the card was not seen since",
        "放回送卡机；已损坏则双人报废"
        " feed it again; if it is broken two people: centre card scrap BODY",
    ),
    Code.SCRAPPED: Words("双人报废", "scrapped by two people", "remake the card"),
    Code.STOCK_MISSING: Words(
        "盘点未见",
        "on the books, and not found when stock was taken",
        "找到后放回原处再盘点；确已遗失则双人核销"
        " find it, put it back and count again; if it is lost: centre card scrap BODY",
    ),
    Code.STOCK_FOUND: Words("盘亏卡已找回", "missed before, found again", "centre adjust COUNT"),
    Code.STOCK_DIFFERS: Words(
        "盘点与账不符",
        "what lies there is not what the books say",
        "先找卡；再由两名库管员调整 look for the cards first; then two storekeepers:"
        " centre adjust COUNT",
    ),
    Code.SCAN_ELSEWHERE: Words(
        "账上在别处", "the books have it elsewhere", "送回该处 bring it to that place"
    ),
    Code.SCAN_UNKNOWN: Words(
        "号码不在账上", "no order stands behind the number", "单独存放 keep the card apart"
    ),
    Code.PLACE_UNKNOWN: Words(
        "无此账户", "no place whose cards are counted", "centre status 列出各处 lists the places"
    ),
    Code.COUNT_UNKNOWN: Words("无此盘点", "no such count", "核对盘点编号 check the id"),
    Code.NOTHING_TO_ADJUST: Words(
        "盘点无需调账", "nothing is missing, and nothing was found again", "none"
    ),
    Code.NOT_DELIVERED: Words("卡片未到", "the card did not come", "ask the factory"),
    Code.KEY_UNKNOWN: Words(
        "缺少密钥",
        "the key is not in the token",
        "查看密钥清单 centre key inventory",
    ),
    Code.KEY_NOT_ACTIVE: Words(
        "密钥未启用", "the key is not active", "启用密钥 two custodians activate it"
    ),
    Code.KEY_USAGE_REFUSED: Words(
        "密钥用途不符", "the key is not for this use", "查看 log/ see log/"
    ),
    Code.KEY_TEMPORARY_REFUSED: Words(
        "卡内已是正式密钥，不得再用临时密钥",
        "the chip has formal keys: no temporary key is used on it again",
        "report to the key custodians",
    ),
    Code.KEY_SOFTWARE_FORBIDDEN: Words(
        "配置禁止在内存中使用密钥",
        "the configuration keeps keys in the token, and this needs one in memory",
        "centre doctor; [keys] software_assisted",
    ),
    Code.KEY_QUOTA_EXCEEDED: Words(
        "超出箱的密钥配额", "the carton's key quota is used up", "centre recount CARTON=COUNT"
    ),
    Code.KEY_BLOCK_BAD: Words("密钥块无效", "the key block cannot be read", "ask for a new block"),
    Code.KEY_CHECK_VALUE_DIFFERS: Words(
        "密钥校验值不符",
        "check value differs",
        "核对来函或重新录入 compare with the letter, type it again",
    ),
    Code.KEY_BLOCK_REPEATED_DIFFERENT: Words(
        "该批次已有其他密钥",
        "other keys of this batch are in the token",
        "与卡厂核对 ask the factory",
    ),
    Code.KEY_LABEL_BAD: Words(
        "密钥标识或算法不符", "no such kind of key, or not in this suite", "check label and suite"
    ),
    Code.KEY_PART_BAD: Words(
        "密钥分量无法使用",
        "a key component can't be used",
        "重新生成或录入分量 bring the component anew (centre doctor compares the transport key)",
    ),
    Code.KEY_WEAK: Words("弱密钥", "a weak key", "分量作废，重新生成 make new components"),
    Code.KEY_EXISTS_DIFFERENT: Words(
        "同名密钥已存在且不同", "another key has this label", "use the next version"
    ),
    Code.KEY_STATE: Words(
        "密钥状态不允许",
        "the key is not in that state",
        "查看密钥清单，或轮换为下一版本 centre key inventory; a retired key never serves again:"
        " centre key rotate",
    ),
    Code.KEY_SET_INCOMPLETE: Words(
        "密钥组不完整", "a set of keys goes together", "补齐该版本密钥 complete the version"
    ),
    Code.KEY_STAYS: Words("该密钥不得导出", "this key never leaves", "leave it out"),
    Code.KEY_BACKUP_BAD: Words(
        "密钥备份文件无效",
        "the file is not whole, or the KEK is another one",
        "核对 KEK 校验值，或换用另一份备份 compare the KEK's check value; use another copy",
    ),
    Code.RECORD_UNSEALABLE: Words(
        "密封记录无法打开", "a sealed record does not open", "centre verify"
    ),
    Code.LOGIN_REFUSED: Words(
        "姓名或密码不符", "name or password is wrong", "再试 try again: centre login NAME"
    ),
    Code.LOGIN_PAUSED: Words(
        "密码多次错误，暂停登录", "too many wrong passwords", "稍后再试 wait, then try again"
    ),
    Code.NOT_LOGGED_IN: Words("未登录", "not logged in", "centre login NAME"),
    Code.SESSION_ENDED: Words("登录已结束", "the login session has ended", "centre login NAME"),
    Code.ROLE_MISSING: Words(
        "无此权限", "not in your roles", "由有权限的人办理 somebody who has the role does it"
    ),
    Code.NOT_THE_OWNER: Words(
        "非系统所有者", "not the owner of this home", "以所有者身份运行 run it as its owner"
    ),
    Code.FOUNDED: Words(
        "已有两名主管，须由主管双人办理",
        "there are two supervisors: it takes both",
        "centre login NAME; centre people add NAME",
    ),
    Code.PASSWORD_SHORT: Words(
        "密码长度不符", "the password has the wrong length", "另选密码 choose another"
    ),
    Code.PASSWORD_TO_CHANGE: Words(
        "密码须先由本人更改",
        "another person typed this password: its owner changes it first",
        "centre people passwd",
    ),
    Code.ROLES_APART: Words(
        "主管不得兼任密钥保管员",
        "nobody is supervisor and key custodian",
        "由两人分任 two people hold them",
    ),
    Code.PERSON_UNKNOWN: Words("无此人员", "no such person", "centre people list"),
    Code.PERSON_KNOWN: Words("姓名已被使用", "the name is taken", "换一个名字 another name"),
    Code.TOO_FEW_SUPERVISORS: Words(
        "主管将不足两名", "fewer than two supervisors would be left", "先增加主管 add one first"
    ),
    Code.ACT_UNKNOWN: Words("无此事项", "no such act", "centre act list"),
    Code.ACT_NOT_OPEN: Words("事项已了结", "the act is not open", "centre act show ACT"),
    Code.ACT_OPEN: Words(
        "同一事项待确认",
        "such an act waits already",
        "确认或撤回 centre act confirm ACT, or centre act withdraw ACT",
    ),
    Code.SAME_PERSON: Words(
        "须由另一人确认", "another person has to confirm", "请另一人登录 let somebody else log in"
    ),
    Code.ACT_OUTDATED: Words(
        "所涉卡片已变动",
        "the cards that the act is about have moved since",
        "撤回后重新提出 centre act withdraw ACT, then propose it anew",
    ),
    Code.CARD_NOT_IN_HAND: Words(
        "扫描的不是这张卡", "another card was scanned", "扫描该卡卡面 scan the face of this card"
    ),
    Code.BODY_UNKNOWN: Words("无此卡体", "no such card body", "核对卡体编号 check the body id"),
    Code.NOT_TO_SCRAP: Words(
        "该卡不在可报废之列",
        "only a card that a line holds, and that a record stands for, is scrapped",
        "centre body BODY",
    ),
    Code.KEY_IN_USE: Words(
        "密钥仍在使用",
        "cards here, or files under it, depend on the key",
        "等待批次结清 wait until they are done",
    ),
    Code.FEEDER_EMPTY: Words(
        "送卡机无卡", "the feeder is empty", "放入下一箱 load the next carton"
    ),
    Code.FEEDER_AWAY: Words(
        "送卡机无应答", "the feeder does not answer", "检查送卡机 look at the feeder"
    ),
    Code.READER_AWAY: Words(
        "读卡器故障", "the reader fails", "检查读卡器及连线 check reader and cable"
    ),
    Code.READER_QUARANTINED: Words(
        "读卡器已隔离：无应答或屡次失败",
        "the reader is in quarantine: it hangs, or its cards fail too often",
        "拔下再插上读卡器，查看其废卡 unplug it and plug it in again; check its rejected cards",
    ),
    Code.PCSC_AWAY: Words(
        "读卡服务中断", "the PC/SC service is away", "重启该机 pcscd restart pcscd there"
    ),
    Code.READER_BUSY: Words(
        "读卡器被占用（工位代理在用）",
        "another program has the reader, as a station agent does",
        "停下该工位或换一台读卡器 stop that station, or take another reader",
    ),
    Code.READER_EMPTY: Words(
        "读卡器内无卡，或芯片无应答",
        "no card lies in the reader, or its chip is dead",
        "放入卡片 lay one in; if one lies there, remake the card",
    ),
    Code.READER_QUIET: Words(
        "读卡器无动作", "the reader asks nothing", "查看工位日志 look at the station's log"
    ),
    Code.STATION_AWAY: Words(
        "工位已断开", "the station is not connected", "启动工位代理 start its agent"
    ),
    Code.STATION_MISSING: Words(
        "没有工位在做此工序", "no station works at this stage", "启动工位 start a station"
    ),
    Code.LINE_AWAY: Words(
        "部件未就绪", "a part is not ready", "自动重启，查看 log/ it starts by itself; see log/"
    ),
    Code.LINE_IDLE: Words("有卡待做而无进展", "cards wait and nothing moves", "查看 log/ see log/"),
    Code.KEY_PROVIDER_AWAY: Words(
        "加密机均无应答",
        "no key provider answers",
        "检查加密机，恢复后自动续做 look at the HSM: work goes on by itself when it is back",
    ),
    Code.RECEIVER_MISSING: Words(
        "未配置接收方", "no receiver is configured", "[card_management] address in centre.toml"
    ),
    Code.UNAVAILABLE: Words("暂不可用", "not available now", "it is tried again by itself"),
    Code.BUSY: Words("繁忙", "busy", "it is tried again by itself"),
    Code.CARTON_NOT_ISSUED: Words("该箱尚未发放", "the carton is not issued yet", "wait"),
    Code.SESSION_LOST: Words("芯片掉电", "the chip lost its session", "the chip is read again"),
    Code.SESSION_UNKNOWN: Words("会话已失效", "the session is not known", "the chip is read again"),
    Code.LEASE_OVER: Words("工位租约已过", "the station's lease is over", "the chip is read again"),
    Code.STAGE_UNKNOWN: Words("无此工序", "no such stage", "check the station's stages"),
    Code.EPOCH_STALE: Words("已被替换", "another instance took over", "none"),
    Code.GUARD_FAILED: Words("状态已变", "the state had changed", "it is tried again by itself"),
    Code.COMMAND_DIFFERS: Words("命令编号已用", "the command id had other content", "use a new id"),
}


def next_step(code: str) -> str:
    """What the person who meets `code` does now; empty for a code that is not ours."""
    return WORDS[Code(code)].next_step if code in Code.__members__ else ""


def in_words(code: str) -> str:
    """`code` for people: Chinese, then English."""
    if code not in Code.__members__:
        return code
    words = WORDS[Code(code)]
    return f"{words.chinese} ({words.english})"
