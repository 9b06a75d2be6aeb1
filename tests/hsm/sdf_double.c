/* A GM/T 0018 device as far as the centre uses one: handles that are checked, keys that stay
 * inside, keys wrapped under a KEK by its index, and the standard's error codes. SM4 as GB/T
 * 32907-2016 writes it down. On command (functions double_*) it loses its sessions or computes
 * wrongly. One thread. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SDR_OK 0x0
#define SDR_BASE 0x01000000
#define SDR_COMMFAIL (SDR_BASE + 0x03)
#define SDR_OPENDEVICE (SDR_BASE + 0x05)
#define SDR_OPENSESSION (SDR_BASE + 0x06)
#define SDR_KEYNOTEXIST (SDR_BASE + 0x08)
#define SDR_ALGNOTSUPPORT (SDR_BASE + 0x09)
#define SDR_NOBUFFER (SDR_BASE + 0x1C)
#define SDR_INARGERR (SDR_BASE + 0x1D)

#define SGD_SM4_ECB 0x00000401

#define KEK_INDEX 3
#define MOST_KEYS 256
#define MOST_SESSIONS 8
#define MOST_BYTES 16384

typedef struct {
    uint32_t rounds[32];
    int used;
} key_t_;

static key_t_ keys[MOST_KEYS];
static int sessions[MOST_SESSIONS];
static int device_open, lost, wrong;

static const uint8_t KEK[16] = "key of a double!";

/* SM4 */

static const uint8_t SBOX[256] = {
    0xd6, 0x90, 0xe9, 0xfe, 0xcc, 0xe1, 0x3d, 0xb7, 0x16, 0xb6, 0x14, 0xc2, 0x28, 0xfb, 0x2c, 0x05,
    0x2b, 0x67, 0x9a, 0x76, 0x2a, 0xbe, 0x04, 0xc3, 0xaa, 0x44, 0x13, 0x26, 0x49, 0x86, 0x06, 0x99,
    0x9c, 0x42, 0x50, 0xf4, 0x91, 0xef, 0x98, 0x7a, 0x33, 0x54, 0x0b, 0x43, 0xed, 0xcf, 0xac, 0x62,
    0xe4, 0xb3, 0x1c, 0xa9, 0xc9, 0x08, 0xe8, 0x95, 0x80, 0xdf, 0x94, 0xfa, 0x75, 0x8f, 0x3f, 0xa6,
    0x47, 0x07, 0xa7, 0xfc, 0xf3, 0x73, 0x17, 0xba, 0x83, 0x59, 0x3c, 0x19, 0xe6, 0x85, 0x4f, 0xa8,
    0x68, 0x6b, 0x81, 0xb2, 0x71, 0x64, 0xda, 0x8b, 0xf8, 0xeb, 0x0f, 0x4b, 0x70, 0x56, 0x9d, 0x35,
    0x1e, 0x24, 0x0e, 0x5e, 0x63, 0x58, 0xd1, 0xa2, 0x25, 0x22, 0x7c, 0x3b, 0x01, 0x21, 0x78, 0x87,
    0xd4, 0x00, 0x46, 0x57, 0x9f, 0xd3, 0x27, 0x52, 0x4c, 0x36, 0x02, 0xe7, 0xa0, 0xc4, 0xc8, 0x9e,
    0xea, 0xbf, 0x8a, 0xd2, 0x40, 0xc7, 0x38, 0xb5, 0xa3, 0xf7, 0xf2, 0xce, 0xf9, 0x61, 0x15, 0xa1,
    0xe0, 0xae, 0x5d, 0xa4, 0x9b, 0x34, 0x1a, 0x55, 0xad, 0x93, 0x32, 0x30, 0xf5, 0x8c, 0xb1, 0xe3,
    0x1d, 0xf6, 0xe2, 0x2e, 0x82, 0x66, 0xca, 0x60, 0xc0, 0x29, 0x23, 0xab, 0x0d, 0x53, 0x4e, 0x6f,
    0xd5, 0xdb, 0x37, 0x45, 0xde, 0xfd, 0x8e, 0x2f, 0x03, 0xff, 0x6a, 0x72, 0x6d, 0x6c, 0x5b, 0x51,
    0x8d, 0x1b, 0xaf, 0x92, 0xbb, 0xdd, 0xbc, 0x7f, 0x11, 0xd9, 0x5c, 0x41, 0x1f, 0x10, 0x5a, 0xd8,
    0x0a, 0xc1, 0x31, 0x88, 0xa5, 0xcd, 0x7b, 0xbd, 0x2d, 0x74, 0xd0, 0x12, 0xb8, 0xe5, 0xb4, 0xb0,
    0x89, 0x69, 0x97, 0x4a, 0x0c, 0x96, 0x77, 0x7e, 0x65, 0xb9, 0xf1, 0x09, 0xc5, 0x6e, 0xc6, 0x84,
    0x18, 0xf0, 0x7d, 0xec, 0x3a, 0xdc, 0x4d, 0x20, 0x79, 0xee, 0x5f, 0x3e, 0xd7, 0xcb, 0x39, 0x48,
};
static const uint32_t FK[4] = {0xa3b1bac6, 0x56aa3350, 0x677d9197, 0xb27022dc};

static uint32_t turn(uint32_t x, int by) { return x << by | x >> (32 - by); }

static uint32_t load(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store(uint8_t *p, uint32_t x) {
    p[0] = x >> 24, p[1] = x >> 16, p[2] = x >> 8, p[3] = x;
}

static uint32_t tau(uint32_t x) {
    return (uint32_t)SBOX[x >> 24] << 24 | (uint32_t)SBOX[x >> 16 & 255] << 16 |
           (uint32_t)SBOX[x >> 8 & 255] << 8 | SBOX[x & 255];
}

static void expand(const uint8_t key[16], uint32_t rounds[32]) {
    uint32_t k[36];
    for (int i = 0; i < 4; i++) k[i] = load(key + 4 * i) ^ FK[i];
    for (int i = 0; i < 32; i++) {
        uint32_t ck = 0;
        for (int j = 0; j < 4; j++) ck = ck << 8 | ((4 * i + j) * 7 & 255);
        uint32_t t = tau(k[i + 1] ^ k[i + 2] ^ k[i + 3] ^ ck);
        rounds[i] = k[i + 4] = k[i] ^ t ^ turn(t, 13) ^ turn(t, 23);
    }
}

static void block(const uint32_t rounds[32], int back, const uint8_t in[16], uint8_t out[16]) {
    uint32_t x[36];
    for (int i = 0; i < 4; i++) x[i] = load(in + 4 * i);
    for (int i = 0; i < 32; i++) {
        uint32_t t = tau(x[i + 1] ^ x[i + 2] ^ x[i + 3] ^ rounds[back ? 31 - i : i]);
        x[i + 4] = x[i] ^ t ^ turn(t, 2) ^ turn(t, 10) ^ turn(t, 18) ^ turn(t, 24);
    }
    for (int i = 0; i < 4; i++) store(out + 4 * i, x[35 - i]);
}

/* Handles: one more than the place in the table, so that none is null. */

static int session_fault(void *session) {
    uintptr_t at = (uintptr_t)session;
    if (lost) return SDR_COMMFAIL;
    return at < 1 || at > MOST_SESSIONS || !sessions[at - 1] ? SDR_INARGERR : SDR_OK;
}

static key_t_ *key_of(void *handle) {
    uintptr_t at = (uintptr_t)handle;
    return at < 1 || at > MOST_KEYS || !keys[at - 1].used ? NULL : &keys[at - 1];
}

static int new_key(const uint8_t value[16], void **handle) {
    for (int i = 0; i < MOST_KEYS; i++)
        if (!keys[i].used) {
            expand(value, keys[i].rounds);
            keys[i].used = 1;
            *handle = (void *)(uintptr_t)(i + 1);
            return SDR_OK;
        }
    return SDR_NOBUFFER;
}

static void drop_all(void) {
    memset(keys, 0, sizeof keys);
    memset(sessions, 0, sizeof sessions);
}

/* GM/T 0018-2012, 6.2 and 6.3 */

int SDF_OpenDevice(void **device) {
    if (!device || device_open) return SDR_OPENDEVICE;
    device_open = 1, lost = 0;
    *device = (void *)&device_open;
    return SDR_OK;
}

int SDF_CloseDevice(void *device) {
    if (device != (void *)&device_open || !device_open) return SDR_INARGERR;
    drop_all();
    device_open = 0;
    return SDR_OK;
}

int SDF_OpenSession(void *device, void **session) {
    if (device != (void *)&device_open || !device_open) return SDR_INARGERR;
    for (int i = 0; i < MOST_SESSIONS; i++)
        if (!sessions[i]) {
            sessions[i] = 1;
            *session = (void *)(uintptr_t)(i + 1);
            return SDR_OK;
        }
    return SDR_OPENSESSION;
}

int SDF_CloseSession(void *session) {
    int fault = session_fault(session);
    if (fault) return fault;
    sessions[(uintptr_t)session - 1] = 0;
    return SDR_OK;
}

int SDF_ImportKeyWithKEK(void *session, unsigned int algorithm, unsigned int index,
                         unsigned char *wrapped, unsigned int length, void **handle) {
    int fault = session_fault(session);
    uint8_t value[16];
    uint32_t rounds[32];
    if (fault) return fault;
    if (index != KEK_INDEX) return SDR_KEYNOTEXIST;
    if (algorithm != SGD_SM4_ECB) return SDR_ALGNOTSUPPORT;
    if (length != 16 || !wrapped) return SDR_INARGERR;
    expand(KEK, rounds);
    block(rounds, 1, wrapped, value);
    return new_key(value, handle);
}

int SDF_ImportKey(void *session, unsigned char *key, unsigned int length, void **handle) {
    int fault = session_fault(session);
    if (fault) return fault;
    return length != 16 || !key ? SDR_INARGERR : new_key(key, handle);
}

#ifndef STANDARD_ONLY /* not in the standard of 2012 */
int SDF_GetSymmKeyHandle(void *session, unsigned int index, void **handle) {
    int fault = session_fault(session);
    if (fault) return fault;
    return index != KEK_INDEX ? SDR_KEYNOTEXIST : new_key(KEK, handle);
}
#endif

int SDF_DestroyKey(void *session, void *handle) {
    int fault = session_fault(session);
    key_t_ *key = key_of(handle);
    if (fault) return fault;
    if (!key) return SDR_KEYNOTEXIST;
    memset(key, 0, sizeof *key);
    return SDR_OK;
}

/* 6.5 */

int SDF_Encrypt(void *session, void *handle, unsigned int algorithm, unsigned char *iv,
                unsigned char *data, unsigned int length, unsigned char *out,
                unsigned int *out_length) {
    int fault = session_fault(session);
    key_t_ *key = key_of(handle);
    (void)iv;
    if (fault) return fault;
    if (!key) return SDR_KEYNOTEXIST;
    if (algorithm != SGD_SM4_ECB) return SDR_ALGNOTSUPPORT;
    if (!data || !out || !out_length || length % 16 || length > MOST_BYTES) return SDR_INARGERR;
    for (unsigned int at = 0; at < length; at += 16) block(key->rounds, 0, data + at, out + at);
    if (wrong && length) out[0] ^= 1;
    *out_length = length;
    return SDR_OK;
}

/* What a test commands, and sees. */

void double_lose_sessions(void) { drop_all(), lost = 1; }

void double_compute_wrongly(int whether) { wrong = whether; }

int double_keys_held(void) {
    int held = 0;
    for (int i = 0; i < MOST_KEYS; i++) held += keys[i].used;
    return held;
}
