<?php
/**
 * A chat with tokens in plain PHP: `taut serve` holds the connections, and this script answers. Each event of a
 * connection is one request to it. index.php is its page, and docs/php.md tells how to run them.
 */

$body = file_get_contents('php://input');
if (!is_from_taut($body, getenv('TAUT_SECRET') ?: 'app-secret')) {
    http_response_code(403);
    exit;
}

$event = json_decode($body, true);
$room = 'room-' . $event['params']['room'];
$answer = [];
if ($event['event'] === 'open') {
    $name = user_of_token($event['request']['query']['token'] ?? '');
    if ($name === null) {
        http_response_code(401);
        exit('unknown token');
    }
    // In a presence channel Taut tells everybody who is there, who joins and who leaves.
    $answer = ['user' => $name, 'subscribe' => [$room, "presence-$room"], 'send' => ['json' => ['welcome' => $name]]];
} elseif ($event['event'] === 'text' && $event['data'] === '') {
    // The page asks whether its connection still works.
    $answer = ['send' => ['json' => ['alive' => true]]];
} elseif ($event['event'] === 'text') {
    $message = ['from' => $event['user']['id'], 'text' => $event['data']];
    $answer = ['publish' => [['channel' => $room, 'data' => $message]]];
}
header('Content-Type: application/json');
echo json_encode($answer);

/** Whom a token is for: here anybody whose name it says; an application looks it up. */
function user_of_token(string $token): ?string
{
    return preg_match('/^token-([a-z]{1,20})$/', $token, $match) ? $match[1] : null;
}

/** Whether a request is signed with the secret, as Standard Webhooks are, and not older than five minutes. */
function is_from_taut(string $body, string $secret): bool
{
    $id = $_SERVER['HTTP_WEBHOOK_ID'] ?? '';
    $time = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    $signature = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$time.$body", $secret, true));
    $given = explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '');
    $matching = array_filter($given, fn ($one) => hash_equals($signature, $one));
    return $matching && abs(time() - (int) $time) <= 300;
}
