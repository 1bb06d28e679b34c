/* pair ROLE PORT COUNTS: one end of the pair of bench/pair.py over libmosquitto, ROLE being publish or receive.
 *
 * It declares what it uses of libmosquitto itself: a machine that runs it need not have its headers. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct mosquitto;
struct message { int mid; char *topic; void *payload; int payloadlen; int qos; bool retain; };
enum { SEND_MAXIMUM = 5, TCP_NODELAY = 11 };

int mosquitto_lib_init(void);
struct mosquitto *mosquitto_new(const char *id, bool clean_session, void *object);
int mosquitto_int_option(struct mosquitto *client, int option, int value);
int mosquitto_connect(struct mosquitto *client, const char *host, int port, int keepalive);
int mosquitto_publish(struct mosquitto *client, int *mid, const char *topic, int size, const void *payload, int qos, bool retain);
int mosquitto_subscribe(struct mosquitto *client, int *mid, const char *filter, int qos);
int mosquitto_loop(struct mosquitto *client, int timeout, int unused);
void mosquitto_connect_callback_set(struct mosquitto *client, void (*call)(struct mosquitto *, void *, int));
void mosquitto_subscribe_callback_set(struct mosquitto *client, void (*call)(struct mosquitto *, void *, int, int, const int *));
void mosquitto_message_callback_set(struct mosquitto *client, void (*call)(struct mosquitto *, void *, const struct message *));

enum { PAYLOAD = 150, TOPICS = 1000, LAG = 4000, JOINED = 100 };

struct counts { volatile int64_t received, is_ready; };

static void on_connect(struct mosquitto *client, void *counts, int code) {
    (void)counts;
    if (code != 0) exit(1);
    mosquitto_subscribe(client, NULL, "miners/+/workers/+", 1);
}

static void on_subscribe(struct mosquitto *client, void *counts, int mid, int count, const int *granted) {
    (void)client; (void)mid; (void)count; (void)granted;
    ((struct counts *)counts)->is_ready = 1;
}

static void on_message(struct mosquitto *client, void *counts, const struct message *message) {
    (void)client; (void)message;
    ((struct counts *)counts)->received++;
}

static void publish(struct mosquitto *client, struct counts *counts) {
    static char topics[TOPICS][40], payload[PAYLOAD];
    memset(payload, 'x', sizeof payload);
    for (int number = 0; number < TOPICS; number++)
        snprintf(topics[number], sizeof topics[number], "miners/f01234/workers/seal%05d", number);
    int64_t sent = 0;
    do {
        for (int count = 0; count < JOINED && sent - counts->received < LAG; count++, sent++)
            mosquitto_publish(client, NULL, topics[sent % TOPICS], sizeof payload, payload, 1, false);
    } while (mosquitto_loop(client, sent - counts->received < LAG ? 0 : 1, 1) == 0);
}

int main(int count, char **words) {
    if (count != 4) return 2;
    int file = open(words[3], O_RDWR);
    struct counts *counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || counts == MAP_FAILED) return 1;
    mosquitto_lib_init();
    bool publishes = strcmp(words[1], "publish") == 0;
    struct mosquitto *client = mosquitto_new(publishes ? "publisher" : "subscriber", true, counts);
    mosquitto_int_option(client, SEND_MAXIMUM, 2 * LAG);
    mosquitto_int_option(client, TCP_NODELAY, 1);
    if (!publishes) {
        mosquitto_connect_callback_set(client, on_connect);
        mosquitto_subscribe_callback_set(client, on_subscribe);
        mosquitto_message_callback_set(client, on_message);
    }
    if (mosquitto_connect(client, "127.0.0.1", atoi(words[2]), 300) != 0) return 1;
    if (publishes) publish(client, counts);
    else while (mosquitto_loop(client, 100, 1) == 0) { }
    return 1;
}
