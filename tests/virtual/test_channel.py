"""The chip speaks SCP02 and SCP03 as recorded by others, byte for byte.

Sources: pySim, tests/unittests/test_globalplatform.py (sessions of a sysmocom eUICC and SIM; the
application is the eUICC's ISD-R, whose AID is part of the challenges); GPShell's traces of real
cards on the mailing lists globalplatform-users (2009-09-30) and muscle (2012-10-31); a JCShell log
in kaoh/globalplatform, issue 73.
"""

from __future__ import annotations

import pytest

from station_agents.virtual.channel import MAC, Channel, Scp02, Scp03
from station_agents.virtual.command import StatusError, parse
from station_agents.virtual.crypto import TwoKeyDes
from station_agents.virtual.financial import FinancialApplication
from station_agents.virtual.financial_memory import (
    AES,
    DES,
    OP_READY,
    FinancialMemory,
    KeySet,
)
from station_agents.virtual.key_sets import check_value, check_values, put_key
from tests.conformance.chip_terminal import ecb

ISD_R = bytes.fromhex("A0000005591010FFFFFFFF8900000100")
DEFAULT_KEY = bytes.fromhex("404142434445464748494A4B4C4D4E4F")
GET_EID, EID = "BF3E035C015A", "BF3E125A1089882119900000000000000000000005"
PLAIN = [GET_EID, "", "", "4F0212345C054F9F70C5", "4F00"]

SCP03 = {
    "AES-128, 11": """8050300008B13E5F938FC108C400
        000000000000000000003003703EB51047495B249F66C484C1D2EF1948000002
        84821100107D5F5826A993EBC89EEA24957FA0B3CE
        84E291000EBF3E035C015A558D036518A2829700
        BF3E125A1089882119900000000000000000000005971BE68992DBBDFA
        84F220020863A63F8959827FB2 84CA006608A0C6A4A74166F7CE00
        84F22002124F0212345C054F9F70C52249B50272656536 84F280020A4F00E91443F6DCE6B8ED00""",
    "AES-128, 03": """80503000088E1552D0513C60F300
        0000000000000000000030037030760CD2C47C1DD395065FE5EAD8A9D7000001
        8482030010FD4721A14D9B07003C451D2F8AE6BB21
        84E2910018CA9C00F6713D79BC8BAA642BDFF51C3F6A4082D3BD9AD26C00
        BF3E125A1089882119900000000000000000000005
        84F2200208C9811B11F1264CF1 84CA006608E10AB60B3054798800
        84F22002184E2908BDB48B2315A55482E9E936CA122D6ECFAE7D17416E
        84F28002180DD10A6B6193E5340B9E77D32D5A179CD710AC2773AEFB2800""",
    "AES-128, 33": """8050300008FDF38259A1E0DE4400
        000000000000000000003003703B1ACA81E821F219081CDC01C26B372D000003
        84823300108C36F96BCC00724A4E13AD591D7DA3F0
        84E2910018267A85DFE4A98FCA6FB0527E0DFECCE4914E40401433C87F00
        F3BA2B1013AA6224F5E1C138D71805C569E5439B47576260B75FC021B25097CB2E68F8A0144975B9
        84F2200208AC6A59024BED84CC 84CA006608409912AD8FB7AED000
        84F22002185F3DAFC3AC14C381536A488BF44E06D056DF9D74DBD21E5A
        84F280021865165105BE3373347D0424D4400AF2AC393F569EC779389E00""",
    "AES-192, 11": """80503100087396430B768B085B00
        000000000000000000003103708CFC23522FFDBF1E5DF5542CAC8FD866000003
        84821100102145ED30B146F5DB252FB7E624CEC244
        84E291000EBF3E035C015AFF42CF801D14394400
        BF3E125A1089882119900000000000000000000005162FBD33E04940A9
        84F22002084584E4F6784811EE 84CA006608937776EBE190FA3000
        84F22002124F0212345C054F9F70C59A52BDDF3040368C 84F280020A4F009804B11411F7393D00""",
    "AES-192, 03": """805031000869C65DA8202BF19F00
        00000000000000000000310370B570A67BE38446717729D6DD3D2EC5B1000001
        848203001065DF4F1A356A887905466516D9E5B7C1
        84E2910018D2C6FB477C5D4AFE4FD4D21F17EFF10D3578EC1774A12A2D00
        BF3E125A1089882119900000000000000000000005
        84F2200208964E188F0B1BB697 84CA006608F0820035A41D3E1800
        84F220021806B076ED452CD1FA84F77F5C08A146AA77A9286757DEA791
        84F2800218D06527E39222DCE091FABDB8E9B898417A67A6852D3577DB00""",
    "AES-192, 33": """80503100089B3F2EEF0E8C937400
        00000000000000000000310370F6BB305A15BAE1A68F79FB08212FBED7000002
        84823300109100BC22D58B45B86A26365CE39FF3CF
        84E29100188F7F946C84F70D17994BC6E8791251BB1BB1BF02CF8DE58900
        C05176C1B6F72AAE50C32CBEE63B0E95998928FD4DFB2BE9F27FFDE8C8476F5909B4805CC4039599
        84F2200208D5D97754B6B3D2BA 84CA006608516C82B8E30ADBEB00
        84F2200218CC247F4761E6944277A4E0D6E32E44025B1E31537E2FC668
        84F2800218BA22B63D509BEF5D093B43E5EAED03ED23144AB2D9CB51DE00""",
    "AES-256, 11": """805032000811666D57866C6F5400
        0000000000000000000032037053EA8847EFA7674E41498A4D66CF0DEE000003
        84821100102F2AD190EFF2FAFC4908996D1CEBD310
        84E291000EBF3E035C015AF4B680372542B59D00
        BF3E125A10898821199000000000000000000000058012DD7F01F1C4C1
        84F2200208D618B7DA68D5FE52 84CA0066088F3E055DB23AD5E500
        84F22002124F0212345C054F9F70C5B6E15CC42404915E 84F280020A4F00AA124AA74AFE7F7500""",
    "AES-256, 03": """8050320008C6066990FC426E1D00
        000000000000000000003203708682CD81BBD8919F2DE3F2664581F118000001
        848203001077C493B632EDADAF865A1E64ACC07CE9
        84E29100183DDAA60594963BEFAADA3525B492EDE23C2AB2C1CE3AFE4400
        BF3E125A1089882119900000000000000000000005
        84F2200208480DDC8E419DA38D 84CA0066083E9D6A6C0B2D732000
        84F22002183EBFEF2DA8B04AF2A85F491F299B76973DF76FF08A4031BE
        84F2800218783FFF80990F5585B1055010EA95094A26E4A8F1EF4B18E100""",
    "AES-256, 33": """805032000897B2055FE58599FD00
        00000000000000000000320370A8439A22CEDF045FA9F1903B2834F26E000002
        8482330010508A0FD959D2E547C6B33154A6BE2057
        84E29100187A5EF717EAF1E135AE92FE54429D0E465DECDA65F5FE5AEA00
        EA90DBFA648A67C5EB6ABC57F8530B97D0CD5647C5E8732016B55203B078DD2ACE7F8BC5D1C1CD99
        84F2200208BCC5C17275545D93 84CA00660804806ABA9D543BB600
        84F2200218717222491556EC81A45F49CE48BE33320024801A1C4CB0E0
        84F2800218561F105BCCD3A1642904B251CCC1228BEB80A82370A8637000""",
}


def aes_keys(length: int) -> tuple[bytes, bytes, bytes]:
    """pySim's test keys: 00 01 02 … of each key's own ten, begun anew after 16 bytes."""
    enc, mac, dek = ((bytes(range(n, n + 16)) * 2)[:length] for n in (0x00, 0x10, 0x20))
    return enc, mac, dek


def card(
    keys: KeySet, *, manager: bytes, diversification: bytes = bytes(10), random: bytes = b""
) -> FinancialApplication:
    memory = FinancialMemory(
        manager, OP_READY, diversification, bytes(42), [keys], tries=10, tries_left=10,
        applications={},
    )  # fmt: skip
    return FinancialApplication(memory, memory.apply, lambda n: random[:n])


def answer(chip: FinancialApplication, apdu: str) -> str:
    return chip.process(parse(bytes.fromhex(apdu))).hex().upper()


def check_value_keys(length: int) -> list[str]:
    return [check_value(AES, key).hex().upper() for key in aes_keys(length)]


@pytest.mark.parametrize("session", SCP03)
def test_scp03_as_recorded(session: str) -> None:
    """INITIALIZE UPDATE is answered with the recorded bytes, pseudo-random challenge included; the
    recorded commands come out in clear; the recorded answer is what leaves."""
    update, opening, authenticate, get_eid, eid, *commands = SCP03[session].split()
    keys = aes_keys(int(session[4:7]) // 8)
    counter = int(opening[-6:], 16)
    chip = card(KeySet(int(update[4:6], 16), AES, keys, counter - 1), manager=ISD_R)
    assert answer(chip, update) == opening
    assert answer(chip, authenticate) == ""

    channel = Scp03(keys, counter, bytes.fromhex(update[10:26]), ISD_R)
    channel.authenticate(parse(bytes.fromhex(authenticate)))
    plain = [channel.unwrap(parse(bytes.fromhex(get_eid))).hex().upper()]
    assert channel.wrap(bytes.fromhex(EID)).hex().upper() == eid
    plain += [channel.unwrap(parse(bytes.fromhex(c))).hex().upper() for c in commands]
    assert plain == PLAIN


def test_scp02_as_recorded() -> None:
    """pySim's session: cryptograms, all four cases of a command, and a key under the DEK."""
    keys = (
        bytes.fromhex("100102030405060708090A0B0C0D0E0F"),
        bytes.fromhex("101102030405060708090A0B0C0D0E0F"),
        bytes.fromhex("102102030405060708090A0B0C0D0E0F"),
    )
    challenge = bytes.fromhex("6B4524ABEE7C")
    chip = card(KeySet(0x20, DES, keys, 1), manager=ISD_R, random=challenge)
    assert answer(chip, "805020000840A62C37FA6304F800").endswith(
        "0200016B4524ABEE7CF32EA3838BC148F3"
    )
    authenticate = "8482010010BA6961667737C5BCEBECE14C7D6A4376"
    assert answer(chip, authenticate) == ""

    channel = Scp02(keys, 1, bytes.fromhex("40A62C37FA6304F8"), lambda _: challenge)
    channel.authenticate(parse(bytes.fromhex(authenticate)))
    commands = """84F220020814DB34FA4341DCA8 84CA00660855ED7C5FF069512B00
        84F22002124F0212345C054F9F70C58FC1B380C4228AF8 84F280020A4F003B95F09317DE6A4E00"""
    plain = [channel.unwrap(parse(bytes.fromhex(c))).hex().upper() for c in commands.split()]
    assert plain == PLAIN[1:]
    key = channel.decipher(bytes.fromhex("15ABF1FE16CCC5AA13743394442942CD"))
    assert key == bytes.fromhex("303132333435363738393A3B3C3D3E3F")


def test_a_real_card_at_level_03() -> None:
    """GPShell, 2009: a card with the default keys as version 42, C-MAC and C-DECRYPTION."""
    keys = (DEFAULT_KEY, DEFAULT_KEY, DEFAULT_KEY)
    challenge = bytes.fromhex("389736801E91")
    chip = card(
        KeySet(0x2A, DES, keys, 0x1C), manager=ISD_R, random=challenge,
        diversification=bytes.fromhex("000073204CC7A8545329"),
    )  # fmt: skip
    update, authenticate = (
        "80502A0008C453FA25E528127200",
        "848203001011B0FCFA2F4C342CE32AE87469F2C20A",
    )
    assert answer(chip, update) == "000073204CC7A85453292A02001C389736801E91531A9CC29523CDA9"
    assert answer(chip, authenticate) == ""
    channel = Scp02(keys, 0x1C, bytes.fromhex(update[10:26]), lambda _: challenge)
    channel.authenticate(parse(bytes.fromhex(authenticate)))
    status = "84F2200010DD0DA4CBDB95ABD873FB51E99ED8D1F900"
    delete = "84E400801866B6144AC33B8B09F5407AE3AF46FD5D47CED38D3D75296C00"
    assert channel.unwrap(parse(bytes.fromhex(status))).hex() == "4f00"
    assert channel.unwrap(parse(bytes.fromhex(delete))).hex() == "4f0aa00000006203010c0101"


def test_a_real_card_with_keys_of_emv_cps() -> None:
    """GPShell, 2012: a card whose keys follow from its diversification data (EMV CPS), and the
    INSTALL that it took."""
    diversification = bytes.fromhex("0000017695008D0F9727")
    last = diversification[4:]
    enc, mac, dek = (
        ecb("3des", DEFAULT_KEY, last + bytes((0xF0, n)) + last + bytes((0x0F, n)))
        for n in (1, 2, 3)
    )
    challenge = bytes.fromhex("58FAE6F7D0E3")
    chip = card(
        KeySet(1, DES, (enc, mac, dek), 0x10), manager=ISD_R, random=challenge,
        diversification=diversification,
    )  # fmt: skip
    update, authenticate = (
        "80500000081CEA81CACBFF859F00",
        "8482010010C255066E7B12B6A3219691B3F4F21DB2",
    )
    assert answer(chip, update) == "0000017695008D0F97270102001058FAE6F7D0E3485ABC93FBEAC740"
    assert answer(chip, authenticate) == ""
    channel = Scp02((enc, mac, dek), 0x10, bytes.fromhex(update[10:26]), lambda _: challenge)
    channel.authenticate(parse(bytes.fromhex(authenticate)))
    install = "84E602002005A00000000108A0000000030000000006EF04C60238B00093961105E2EDAE4B00"
    assert channel.unwrap(parse(bytes.fromhex(install))).hex() == (
        "05a00000000108a0000000030000000006ef04c60238b000"
    )


def test_check_values_as_published() -> None:
    """AES: pySim's key set; 3DES: the default key's 8BAF47 as GlobalPlatformPro prints it."""
    assert check_value_keys(16) == ["C35280", "013808", "840DE5"]
    assert check_value(DES, DEFAULT_KEY).hex().upper() == "8BAF47"


class _JcShell:
    """A channel of which only the session's DEK is known."""

    DEK_BLOCK = 8

    def decipher(self, data: bytes) -> bytes:
        return TwoKeyDes(bytes.fromhex("C61DF24D2C9A770E32E969984B5B7074")).decrypt(data)


def test_put_key_as_recorded() -> None:
    """AES keys put over SCP02, as JCShell sent them: the length of the key stands before it."""
    one = "881110B23034FA4329DE9AD8E91583618813B303504A77"
    command = parse(bytes.fromhex("80D8008146" + "30" + one * 3 + "00"))
    memory = FinancialMemory(ISD_R, OP_READY, bytes(10), bytes(42), [], 10, 10, {})
    channel: Channel = _JcShell()  # type: ignore[assignment]
    written = put_key(command, channel, memory)
    assert written.keys.keys == (DEFAULT_KEY,) * 3
    assert check_values(written.keys).hex().upper() == "30" + "504A77" * 3


def test_recorded_commands_reach_the_card_manager() -> None:
    """The recorded session over the whole chip: every command passes its MAC, the last ones are
    answered under R-MAC and R-ENCRYPTION."""
    update, opening, authenticate, get_eid, _, *commands = SCP03["AES-128, 33"].split()
    keys = KeySet(0x30, AES, aes_keys(16), int(opening[-6:], 16) - 1)
    memory = FinancialMemory(ISD_R, OP_READY, bytes(10), bytes(42), [keys], 10, 10, {})
    chip = FinancialApplication(memory, memory.apply)
    answer(chip, update)
    answer(chip, authenticate)
    ends = []
    for apdu in (get_eid, *commands):
        try:
            ends.append(f"{len(chip.process(parse(bytes.fromhex(apdu)))) - MAC} enciphered")
        except StatusError as e:
            ends.append(e.answer.hex().upper())
    assert ends == [
        "6985",  # STORE DATA without an application
        "6A80",  # GET STATUS without a search
        "64 enciphered",  # GET DATA of the card data
        "6A88",  # GET STATUS of something that isn't there
        "32 enciphered",  # GET STATUS of the card manager
    ]
