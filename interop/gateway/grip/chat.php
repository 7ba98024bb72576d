<?php
/** WebSocket-over-HTTP with GRIP by hand: a chat in one script, for `php -S` and php-fpm. */

if (!signed($_SERVER['HTTP_GRIP_SIG'] ?? '', getenv('KEY'))) {
    http_response_code(403);
    exit('not signed');
}
$user = $_SERVER['HTTP_META_USER'] ?? null;
$answer = '';
foreach (events(file_get_contents('php://input')) as [$type, $content]) {
    if ($type === 'OPEN') {
        if (!$user = $_GET['user'] ?? null) {
            http_response_code(401);
            exit('who are you?');
        }
        header('Sec-WebSocket-Extensions: grip');
        header("Set-Meta-User: $user");
        $answer .= event('OPEN') . event('TEXT', 'c:{"type":"subscribe","channel":"room"}') . event('TEXT', "m:hello $user");
    } elseif ($type === 'TEXT' && $content === 'bye') {
        $answer .= event('CLOSE', pack('n', 4001) . 'see you');
    } elseif ($type === 'TEXT' && $content === 'all') {
        publish("from $user");
    } elseif ($type === 'TEXT' || $type === 'BINARY') {
        $answer .= event($type, 'm:' . ($type === 'TEXT' ? "[$user] $content" : $content));
    } elseif ($type === 'CLOSE' || $type === 'DISCONNECT') {
        publish("$user left: $type " . bin2hex($content));
        $answer .= $type === 'CLOSE' ? event('CLOSE', $content) : '';
    }
}
header('Content-Type: application/websocket-events');
echo $answer;

/** The events of a body: pairs of type and content. */
function events(string $body): iterable
{
    for ($at = 0; $at < strlen($body);) {
        $end = strpos($body, "\r\n", $at);
        [$type, $length] = explode(' ', substr($body, $at, $end - $at)) + [1 => null];
        $at = $end + 2;
        yield [$type, $length === null ? '' : substr($body, $at, hexdec($length))];
        $at += $length === null ? 0 : hexdec($length) + 2;
    }
}

function event(string $type, string $content = ''): string
{
    return $content === '' ? "$type\r\n" : $type . ' ' . strtoupper(dechex(strlen($content))) . "\r\n$content\r\n";
}

/** Whether a token is signed with the key and not too old. */
function signed(string $token, string $key): bool
{
    $parts = explode('.', $token);
    $decode = fn (string $part) => base64_decode(strtr($part, '-_', '+/'));
    return count($parts) === 3 && hash_equals(hash_hmac('sha256', "$parts[0].$parts[1]", $key, true), $decode($parts[2]))
        && json_decode($decode($parts[1]))->exp > time();
}

function publish(string $text): void
{
    $items = ['items' => [['channel' => 'room', 'formats' => ['ws-message' => ['content' => $text]]]]];
    $header = ['Content-Type: application/json', 'Authorization: Bearer ' . getenv('KEY')];
    file_get_contents(getenv('CONTROL') . '/publish/', false, stream_context_create(['http' => ['method' => 'POST', 'header' => $header, 'content' => json_encode($items)]]));
}
