<?php

/**
 * What Laravel's broadcaster calls `Pusher\Pusher`: Debian has no such package, so this makes its requests and signatures.
 * On the wire they are those of Pusher's own package: the same HTTP client, so the same escapes in queries, `channel` where there is
 * exactly one, lists as `name[0]=…`, and a path that is signed without the prefix it is sent with.
 */

namespace Pusher;

require_once 'GuzzleHttp/autoload.php';

use GuzzleHttp\Client;

/** The answer was not 200. Its code is the status, its message the body. */
class ApiErrorException extends \Exception
{
}

class Pusher
{
    private Client $client;

    public function __construct(private array $app)
    {
        $this->client = new Client(['http_errors' => false, 'timeout' => 10]);
    }

    public function trigger($channels, string $event, $data, array $params = []): object
    {
        $channels = (array) $channels;
        $body = ['name' => $event, 'data' => $this->payload($channels[0], $data)];
        $body += count($channels) === 1 ? ['channel' => $channels[0]] : ['channels' => $channels];

        return $this->post('/events', $body + $params);
    }

    public function triggerBatch(array $batch): object
    {
        foreach ($batch as &$event) {
            $event['data'] = $this->payload($event['channel'], $event['data']);
        }

        return $this->post('/batch_events', ['batch' => $batch]);
    }

    public function sendToUser(string $user, string $event, $data): object
    {
        return $this->trigger("#server-to-user-$user", $event, $data);
    }

    public function terminateUserConnections(string $user): object
    {
        return $this->post("/users/$user/terminate_connections", []);
    }

    public function get(string $path, array $params = []): object
    {
        return $this->send('GET', $path, $params, null);
    }

    public function authorizeChannel(string $channel, string $socket, ?string $data = null): string
    {
        $answer = ['auth' => $this->signed("$socket:$channel".($data === null ? '' : ":$data"))];
        if ($data !== null) {
            $answer['channel_data'] = $data;
        }
        if ($this->isEncrypted($channel)) {
            $answer['shared_secret'] = base64_encode($this->sharedSecret($channel));
        }

        return json_encode($answer, JSON_UNESCAPED_SLASHES);
    }

    public function authorizePresenceChannel(string $channel, string $socket, $user, $info = null): string
    {
        return $this->authorizeChannel($channel, $socket, json_encode(['user_id' => $user] + ($info === null ? [] : ['user_info' => $info])));
    }

    public function authenticateUser(string $socket, array $user): string
    {
        $data = json_encode($user);

        return json_encode(['auth' => $this->signed("$socket::user::$data"), 'user_data' => $data]);
    }

    /** The names that Illuminate 8 knows. */
    public function socket_auth($channel, $socket)
    {
        return $this->authorizeChannel($channel, $socket);
    }

    public function presence_auth($channel, $socket, $user, $info)
    {
        return $this->authorizePresenceChannel($channel, $socket, $user, $info);
    }

    /** The events of a webhook, or null if it is not genuine. */
    public function webhook(string $key, string $signature, string $body): ?array
    {
        $genuine = $key === $this->app['key'] && hash_equals($this->hmac($body), $signature);

        return $genuine ? json_decode($body)->events : null;
    }

    private function post(string $path, array $body): object
    {
        return $this->send('POST', $path, [], json_encode($body ?: new \stdClass()));
    }

    private function send(string $method, string $path, array $query, ?string $body): object
    {
        $path = "/apps/{$this->app['id']}$path";
        $query += ['auth_key' => $this->app['key'], 'auth_timestamp' => (string) time(), 'auth_version' => '1.0'];
        if ($body !== null) {
            $query['body_md5'] = md5($body);
        }
        ksort($query);
        $joined = array_map(fn ($name, $value) => strtolower($name).'='.implode(',', (array) $value), array_keys($query), $query);
        $query['auth_signature'] = $this->hmac("$method\n$path\n".implode('&', $joined));
        $url = "http://{$this->app['host']}:{$this->app['port']}".($this->app['path'] ?? '').str_replace('#', '%23', $path);
        $response = $this->client->request($method, $url, [
            'query' => $query,
            'headers' => ['Content-Type' => 'application/json', 'X-Pusher-Library' => 'pusher-http-php as Debian lacks it'],
        ] + ($body === null ? [] : ['body' => $body]));
        $text = (string) $response->getBody();
        $answer = json_decode($text);
        if ($response->getStatusCode() !== 200 || ! is_object($answer)) {
            throw new ApiErrorException($text, $response->getStatusCode());
        }

        return $answer;
    }

    private function payload(string $channel, $data): string
    {
        $text = is_string($data) ? $data : json_encode($data);
        if (! $this->isEncrypted($channel)) {
            return $text;
        }
        $nonce = random_bytes(SODIUM_CRYPTO_SECRETBOX_NONCEBYTES);
        $box = sodium_crypto_secretbox($text, $nonce, $this->sharedSecret($channel));

        return json_encode(['nonce' => base64_encode($nonce), 'ciphertext' => base64_encode($box)]);
    }

    private function isEncrypted(string $channel): bool
    {
        return str_starts_with($channel, 'private-encrypted-');
    }

    private function sharedSecret(string $channel): string
    {
        return hash('sha256', $channel.base64_decode($this->app['master_key']), true);
    }

    private function signed(string $text): string
    {
        return "{$this->app['key']}:".$this->hmac($text);
    }

    private function hmac(string $text): string
    {
        return hash_hmac('sha256', $text, $this->app['secret']);
    }
}
